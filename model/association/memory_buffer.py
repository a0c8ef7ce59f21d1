"""Video-kMaX's location-aware memory buffer (LA-MB): stitch first, then ask a memory of looks and places.

A thing that stitching does not find again is compared with the objects in memory that the clip does not show yet:
cosine of their appearance times exp(-squared distance of their boxes / temperature). Objects out of sight go on moving
as they last did and are forgotten after `patience` clips (arXiv 2304.04694, section 3.2 and supplement, algorithm 1).

The algorithm lets every object take its best entry. Two of them may want the same one; the better pair goes first
here, entries are taken once, and classes must agree. `official_compat` is the released code (dlsrbgg33/video_kmax,
`video_kmax_deeplab/utils/associater/lamb_module.py`): distances are not squared, one assignment over all classes whose
pairs are tested afterwards, and new objects enter memory only when it had nothing to offer.

Without `stitch` and `location` it is the naive memory buffer the paper compares with: looks alone, and everything is
looked up in the whole memory.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from model.association.linker import Looks, MatchingSpace, best_first, start_tracks, unit
from model.association.stitching import Stitcher
from model.contracts import ClipSegments
from model.labels import class_of, panoptic_id, track_of


@dataclass(frozen=True, kw_only=True)
class MemoryBufferConfig:
    """The defaults are those of near-online clips of two frames; online (clips of one) takes overlap 0, accept 0.5."""

    name: Literal["memory_buffer"] = "memory_buffer"
    overlap: int = 1                # frames that neighbouring clips share; 0: nothing can be stitched
    stitch: bool = True             # false: also what the shared frame would tell is looked up
    location: bool = True           # false: compare looks alone
    accept: float = 0.7             # least score of the same object; the paper's alpha
    temperature: float = 1.0        # of distances between boxes, in parts of width and height
    update: float = 0.2             # share of the new appearance when an object is seen again; the paper's lambda
    patience: int = 10              # clips an object may be out of sight and be known again; the paper's tau
    official_compat: bool = False

    def __post_init__(self) -> None:
        if self.overlap < 0 or self.patience < 0 or self.temperature <= 0 or not 0 <= self.update <= 1:
            raise ValueError(f"{self.name} with overlap={self.overlap}, patience={self.patience}, temperature="
                             f"{self.temperature}, update={self.update}: the first two must not be negative, the "
                             "temperature must be above 0 and update a fraction (official: 1, 10, 1.0, 0.2)")


@dataclass(frozen=True, kw_only=True)
class NaiveBufferConfig(MemoryBufferConfig):
    """The paper's comparison, at the patience that is best for it (supplement, table 2)."""

    name: Literal["naive_buffer"] = "naive_buffer"
    stitch: bool = False
    location: bool = False
    patience: int = 1


@dataclass(slots=True)
class Remembered:
    """One object in memory."""

    appearance: np.ndarray      # d
    box: np.ndarray             # 4, where it is expected now
    before: np.ndarray          # 4, where it was one clip ago
    seen: int                   # number of the clip that last showed it


class MemoryBuffer:
    """A linker whose memory is a dictionary of objects; it grows with the objects that were seen recently."""

    looks: Looks = "appearance"

    def __init__(self, config: MemoryBufferConfig) -> None:
        self.config = config
        self.matching = MatchingSpace()
        self.memory: dict[int, Remembered] = {}     # panoptic id -> object
        self._stitcher = Stitcher(official_compat=config.official_compat)
        self._last: Counter[int] = Counter()        # class -> last track
        self._clip = -1

    def step(self, clip: ClipSegments) -> np.ndarray:
        """See `Linker`."""
        self._clip += 1
        tracks = self._stitcher.match(clip) if self.config.stitch else np.zeros(len(clip.classes), dtype=np.int64)
        stitched = set(panoptic_id(clip.classes, tracks)[tracks > 0].tolist())
        asking = np.flatnonzero(clip.is_thing & (tracks == 0))
        candidates = [identity for identity in self.memory if identity not in stitched]
        self.matching.add(len(asking) * len(candidates))
        for segment, identity in self._recognise(clip, asking, candidates):
            tracks[segment] = track_of(identity)
        remembers_new = not (self.config.official_compat and candidates)
        encoded = clip.is_thing & (remembers_new | (tracks > 0))
        start_tracks(tracks, clip, self._last)
        self._encode(clip, tracks, np.flatnonzero(encoded))
        self._stitcher.remember(clip, tracks)
        return tracks

    def _recognise(self, clip: ClipSegments, asking: np.ndarray, candidates: list[int]) -> list[tuple[int, int]]:
        """Pairs (segment, panoptic id in memory) that are the same object."""
        if not len(asking) or not candidates:
            return []
        entries = [self.memory[identity] for identity in candidates]
        scores = unit(clip.embeddings[asking]) @ unit(np.stack([entry.appearance for entry in entries])).T
        if self.config.location:
            metric = "euclidean" if self.config.official_compat else "sqeuclidean"
            distance = cdist(clip.boxes[asking], np.stack([entry.box for entry in entries]), metric)
            scores = scores * np.exp(-distance / self.config.temperature)
        same_class = clip.classes[asking][:, None] == class_of(np.array(candidates))[None]
        if self.config.official_compat:
            pairs = [(row, column) for row, column in zip(*linear_sum_assignment(-scores))
                     if scores[row, column] > self.config.accept and same_class[row, column]]
        else:
            pairs = best_first(np.where(same_class, scores, -np.inf), least=self.config.accept)
        return [(int(asking[row]), candidates[column]) for row, column in pairs]

    def _encode(self, clip: ClipSegments, tracks: np.ndarray, segments: np.ndarray) -> None:
        """Write the given segments into memory, move what this clip does not show, forget what is gone for long."""
        for segment in segments:
            identity = int(panoptic_id(clip.classes[segment], tracks[segment]))
            look = clip.embeddings[segment]
            box = clip.boxes[segment]
            known = self.memory.get(identity)
            if known is not None:
                look = (1 - self.config.update) * known.appearance + self.config.update * look
            self.memory[identity] = Remembered(look, box, box if known is None else known.box, self._clip)
        for identity, entry in list(self.memory.items()):
            if entry.seen < self._clip:
                entry.box, entry.before = 2 * entry.box - entry.before, entry.box
                if self._clip - entry.seen > self.config.patience:
                    del self.memory[identity]
