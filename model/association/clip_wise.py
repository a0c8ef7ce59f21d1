"""Assignment with rejection: the things of a clip are matched to all earlier tracks of their class by mask embedding.

MaXTron's memory-saving alternative to aligning queries (`inference_type` "clip-wise" in TACJu/MaXTron): every clip is
merged on its own, and an object unlike all earlier ones starts a new track. Tracks are never forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from model.assignment import best_assignment
from model.association.linker import Looks, MatchingSpace, unit
from model.contracts import ClipSegments


@dataclass(frozen=True, kw_only=True)
class ClipWiseConfig:
    """Link merged clips by mask embeddings alone."""

    kind: Literal["clip_wise"] = "clip_wise"
    limit: float = 0.5                  # pairs of a larger cost 1 - (cos + 1) / 2 are rejected; 0.5: a right angle
    memory_weight: float = 0.0          # share of a track's old embedding when it is seen again
    overlap: ClassVar[int] = 0          # neighbouring clips share no frame

    def build(self) -> ClipWiseLinker:
        """The linker of one video."""
        return ClipWiseLinker(self)

    def __post_init__(self) -> None:
        for name in ("limit", "memory_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"clip_wise.{name}={getattr(self, name)} must lie between 0 and 1; the official "
                                 "values are limit 0.5 and memory_weight 0")


class ClipWiseLinker:
    """Holds one unit embedding per track."""

    looks: Looks = "mask_embeddings"

    def __init__(self, config: ClipWiseConfig) -> None:
        self.config = config
        self.matching = MatchingSpace()
        self.memory: dict[int, np.ndarray] = {}     # class -> tracks d, track 1 first

    def step(self, clip: ClipSegments) -> np.ndarray:
        """See `Linker`."""
        tracks = np.zeros(len(clip.classes), dtype=np.int64)
        embeddings = unit(clip.embeddings)
        compared = 0
        for label in np.unique(clip.classes[clip.is_thing]).tolist():
            segments = np.flatnonzero(clip.classes == label)
            compared += len(segments) * len(self.memory.get(label, ()))
            tracks[segments] = self._link(label, embeddings[segments])
        self.matching.add(compared)
        return tracks

    def _link(self, label: int, embeddings: np.ndarray) -> np.ndarray:
        """embeddings: m d of the segments of one class -> their tracks."""
        memory = self.memory.get(label, np.zeros((0, embeddings.shape[1])))
        tracks = np.zeros(len(embeddings), dtype=np.int64)
        for segment, entry in assign_below(1 - (embeddings @ memory.T + 1) / 2, limit=self.config.limit):
            kept = self.config.memory_weight
            memory[entry] = unit(kept * memory[entry] + (1 - kept) * embeddings[segment])
            tracks[segment] = entry + 1
        new = tracks == 0
        tracks[new] = len(memory) + 1 + np.arange(new.sum())
        self.memory[label] = np.concatenate([memory, embeddings[new]])
        return tracks


def assign_below(costs: np.ndarray, *, limit: float) -> list[tuple[int, int]]:
    """The one-to-one pairs (row, column) of smallest total cost, if leaving a row and a column out costs `limit`."""
    gains = np.minimum(costs - limit, 0)
    return [(row, column) for row, column in zip(*best_assignment(gains)) if gains[row, column] < 0]
