"""Video-kMaX's location-aware memory buffer (LA-MB): stitching first, then a memory of appearances and locations.

A thing that stitching does not find again is compared with the objects in memory that the clip does not show yet. The
score is the cosine of the appearances times exp(-squared distance of the boxes / temperature). Objects out of sight
keep their last motion and are forgotten after `patience` clips (arXiv 2304.04694, section 3.2 and supplement,
algorithm 1).

In the paper's algorithm every object takes its best entry, and two objects can take the same one. Here the better pair
goes first, each entry is taken once, and classes must agree. `official_compat` follows the released code
(dlsrbgg33/video_kmax, `video_kmax_deeplab/utils/associater/lamb_module.py`): distances are not squared, one assignment
over all classes is made and its pairs are tested afterwards, and new objects enter memory only if it has no candidate.

Without `stitch` and `location` it is the naive memory buffer that the paper compares with: every thing is compared with
the whole memory, by appearance alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.assignment import best_assignment
from model.association.linker import Looks, MatchingSpace, best_first, start_tracks, unit
from model.association.stitching import Stitcher
from model.contracts import ClipSegments
from model.labels import class_of, panoptic_id, track_of


@dataclass(frozen=True, kw_only=True)
class MemoryBufferConfig:
    """The defaults are those of near-online clips of two frames; online (clips of one) takes overlap 0, accept 0.5."""

    kind: Literal["memory_buffer"] = "memory_buffer"
    overlap: int = 1                # frames that neighbouring clips share; 0: nothing can be stitched
    stitch: bool = True             # false: every thing is looked up in memory
    location: bool = True           # false: appearances alone are compared
    accept: float = 0.7             # smallest score of the same object; the paper's alpha
    temperature: float = 1.0        # of box distances, in fractions of width and height
    update: float = 0.2             # share of the new appearance when an object is seen again; the paper's lambda
    patience: int = 10              # clips an object may be out of sight before it is forgotten; the paper's tau
    official_compat: bool = False

    def build(self) -> MemoryBuffer:
        """The linker of one video."""
        return MemoryBuffer(self)

    def __post_init__(self) -> None:
        if self.overlap < 0 or self.patience < 0 or self.temperature <= 0 or not 0 <= self.update <= 1:
            raise ValueError(f"{self.kind} with overlap={self.overlap}, patience={self.patience}, temperature="
                             f"{self.temperature}, update={self.update}: the first two must not be negative, the "
                             "temperature must be above 0 and update a fraction (official: 1, 10, 1.0, 0.2)")


@dataclass(frozen=True, kw_only=True)
class NaiveBufferConfig(MemoryBufferConfig):
    """The baseline of the paper, with the patience that suits it best (supplement, table 2)."""

    kind: Literal["naive_buffer"] = "naive_buffer"
    stitch: bool = False
    location: bool = False
    patience: int = 1


@dataclass(slots=True)
class Remembered:
    """One object in memory."""

    appearance: np.ndarray      # d
    box: np.ndarray             # 4, where the object is expected now
    before: np.ndarray          # 4, where the object was one clip ago
    seen: int                   # index of the clip that last showed it


class MemoryBuffer:
    """A linker whose memory is a dictionary of objects; it grows with the number of recent objects."""

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
            from scipy.spatial.distance import cdist  # as slow to import as model/assignment.py says

            metric = "euclidean" if self.config.official_compat else "sqeuclidean"
            distance = cdist(clip.boxes[asking], np.stack([entry.box for entry in entries]), metric)
            scores = scores * np.exp(-distance / self.config.temperature)
        same_class = clip.classes[asking][:, None] == class_of(np.array(candidates))[None]
        if self.config.official_compat:
            pairs = [(row, column) for row, column in zip(*best_assignment(-scores))
                     if scores[row, column] > self.config.accept and same_class[row, column]]
        else:
            pairs = best_first(np.where(same_class, scores, -np.inf), least=self.config.accept)
        return [(int(asking[row]), candidates[column]) for row, column in pairs]

    def _encode(self, clip: ClipSegments, tracks: np.ndarray, segments: np.ndarray) -> None:
        """Write the given segments into memory, move the objects that this clip does not show, and forget old ones."""
        for segment in segments:
            identity = int(panoptic_id(clip.classes[segment], tracks[segment]))
            appearance = clip.embeddings[segment]
            box = clip.boxes[segment]
            known = self.memory.get(identity)
            if known is not None:
                appearance = (1 - self.config.update) * known.appearance + self.config.update * appearance
            self.memory[identity] = Remembered(appearance, box, box if known is None else known.box, self._clip)
        for identity, entry in list(self.memory.items()):
            if entry.seen < self._clip:
                entry.box, entry.before = 2 * entry.box - entry.before, entry.box
                if self._clip - entry.seen > self.config.patience:
                    del self.memory[identity]
