"""The association that gives the queries of a clip to the slots of tracks; `model.inference.tracked_order` does so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class QueryTrackingConfig:
    """Track queries before merging by the quasi-dense tracker, whose thresholds are those of `inference.tracker`."""

    kind: Literal["quasi_dense"] = "quasi_dense"
    overlap: ClassVar[int] = 0          # neighbouring clips share no frame
