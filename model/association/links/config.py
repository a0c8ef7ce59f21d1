"""The association that reorders the queries of each clip by learned links; `model.inference` does so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class LinksConfig:
    """Align queries by a network that `stage_two.links` trained."""

    kind: Literal["links"] = "links"
    streaming: bool = False             # one decision per clip, as endless streams need; False: over the whole video
    overlap: ClassVar[int] = 0          # neighbouring clips share no frame
