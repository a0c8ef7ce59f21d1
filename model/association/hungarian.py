"""The association that aligns queries before clips are merged (near-online MaXTron); `model.inference` does so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class HungarianConfig:
    """Align queries before merging, as MaXTron does."""

    kind: Literal["hungarian"] = "hungarian"
    overlap: ClassVar[int] = 0          # neighbouring clips share no frame
