"""Quasi-dense tracking: segments of a clip are matched to remembered tracks by the two-way softmax of embeddings.

QDTrack (arXiv 2006.06664, section 3.3) as Tube-Link uses it; facts follow `tracker/qdtrack/trackers/idol_tracker.py` in
lxtGH/Tube-Link, which keeps backdrops but, unlike the paper, never compares with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

UNMATCHED = 0     # tracks count from 1


@dataclass(frozen=True, kw_only=True)
class QuasiDenseConfig:
    """Thresholds. The defaults are those of every released Tube-Link model for panoptic video."""

    duplicate_overlap: float = 0.7      # IoU above which the later of two segments is left out before matching
    backdrop_overlap: float = 0.3       # IoU with an earlier segment below which an unmatched one becomes a backdrop
    match: float = 0.5                  # similarity that a pair needs
    first_score: float = 0.2            # class score that a segment needs to start a track while memory is empty
    new_score: float = 0.5              # the same once tracks are remembered
    object_score: float = 0.1           # class score that a segment needs to continue a track
    memory_frames: int = 10             # a track is forgotten this many frames after it was last seen
    backdrop_clips: int = 1             # clips whose backdrops are remembered
    momentum: float = 0.5               # share of the new embedding when a track is seen again
    official_compat: bool = False       # see `QuasiDenseTracker`

    def __post_init__(self) -> None:
        for name in ("duplicate_overlap", "backdrop_overlap", "match", "first_score", "new_score", "object_score",
                     "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"tracker.{name}={getattr(self, name)} is not a fraction; choose a value from 0 to 1")
        if self.memory_frames < 1 or self.backdrop_clips < 0:
            raise ValueError(f"tracker.memory_frames={self.memory_frames} must be at least 1 and backdrop_clips="
                             f"{self.backdrop_clips} not negative; official: 10 and 1")


class QuasiDenseTracker:
    """Tracks one video, one `step` per clip. It remembers one embedding per track, and the backdrops of the last clips.

    Segments are visited by descending score. A segment that is left out, or that matches nothing and scores too low to
    start a remembered track, gets a track of its own that is never matched again.

    official_compat: segments are visited in their given order, backdrops and the object score are ignored, such
    segments get track 0, and the tracks are returned without gaps for omitted segments, so that some go to the wrong
    segment.
    """

    def __init__(self, config: QuasiDenseConfig) -> None:
        self.config = config
        self._tracks = 0                                            # the last track given
        self._memory: dict[int, tuple[Tensor, int]] = {}            # track -> embedding d, frame it was last seen
        self._backdrops: list[Tensor] = []                          # x d, newest clip first

    @property
    def remembered(self) -> set[int]:
        """The tracks that a segment of the next clip can continue."""
        return set(self._memory)

    @torch.no_grad()
    def step(self, embeddings: Tensor, *, scores: Tensor, overlaps: np.ndarray, frame: int) -> np.ndarray:
        """embeddings m d, class scores m, IoU of the segments m m, first frame of the clip -> tracks m int64."""
        if not embeddings.isfinite().all():
            raise ValueError(f"the embeddings {tuple(embeddings.shape)} of the clip at frame {frame} hold NaN or "
                             "infinity and cannot be tracked; the segmenter diverged or its checkpoint does not fit")
        if not len(embeddings):
            return np.zeros(0, dtype=np.int64)
        compat = self.config.official_compat
        embeddings = embeddings.double().cpu()
        confidence = scores.double().cpu().numpy()
        order = np.arange(len(scores)) if compat else np.argsort(-confidence, kind="stable")
        kept = self._without_duplicates(order, overlaps)
        matched = self._match(embeddings[kept], confidence[kept])
        self._remember(embeddings[kept], matched, overlaps[np.ix_(kept, kept)], frame)
        tracks = np.full(len(scores), UNMATCHED, dtype=np.int64)
        tracks[np.arange(len(kept)) if compat else kept] = matched
        if not compat:
            alone = tracks == UNMATCHED
            tracks[alone] = self._new(alone.sum())
        return tracks

    def _without_duplicates(self, order: np.ndarray, overlaps: np.ndarray) -> np.ndarray:
        kept = []
        for segment in order:
            if not (overlaps[segment, kept] > self.config.duplicate_overlap).any():
                kept.append(segment)
        return np.array(kept)

    def _match(self, embeddings: Tensor, scores: np.ndarray) -> np.ndarray:
        """embeddings x d -> tracks x, including new ones; UNMATCHED for segments without a track."""
        config = self.config
        matched = np.full(len(scores), UNMATCHED, dtype=np.int64)
        threshold = config.new_score if self._memory else config.first_score
        if self._memory:
            names = np.array(list(self._memory))
            known = [torch.stack([embedding for embedding, _ in self._memory.values()])]
            known += [] if config.official_compat else self._backdrops
            similarity = two_way_softmax(embeddings, torch.cat(known)).numpy()      # x tracks+backdrops
            least = 0.0 if config.official_compat else config.object_score
            for segment, row in enumerate(similarity):
                best = row.argmax()
                if row[best] > config.match and best < len(names) and scores[segment] > least:
                    matched[segment] = names[best]
                    similarity[np.arange(len(similarity)) != segment, best] = 0     # a track is given once
        new = (matched == UNMATCHED) & (scores > threshold)
        matched[new] = self._new(new.sum())
        return matched

    def _remember(self, embeddings: Tensor, matched: np.ndarray, overlaps: np.ndarray, frame: int) -> None:
        momentum = self.config.momentum
        backdrops = []
        for segment, track in enumerate(matched.tolist()):
            if track != UNMATCHED:
                old, _ = self._memory.get(track, (embeddings[segment], frame))
                self._memory[track] = ((1 - momentum) * old + momentum * embeddings[segment], frame)
            elif (overlaps[segment, :segment] < self.config.backdrop_overlap).all():
                backdrops.append(segment)
        self._memory = {track: (embedding, seen) for track, (embedding, seen) in self._memory.items()
                        if frame - seen < self.config.memory_frames}
        self._backdrops = [embeddings[backdrops], *self._backdrops][:self.config.backdrop_clips]

    def _new(self, count: int) -> np.ndarray:
        self._tracks += int(count)
        return np.arange(self._tracks - count + 1, self._tracks + 1)


def two_way_softmax(embeddings: Tensor, known: Tensor) -> Tensor:
    """embeddings x d, known y d -> x y: mean of the softmaxes of their dot products over the known and over the new."""
    dots = embeddings @ known.T
    return (dots.softmax(1) + dots.softmax(0)) / 2
