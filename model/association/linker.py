"""The interface of all linkers of segments, and the helpers they share. Clips are merged one by one, then the segments
of each clip get the tracks of the video (`model/segment_linking.py`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from model.contracts import ClipSegments

Looks = Literal["appearance", "mask_embeddings"]     # the field of ClipPrediction by which segments are compared


@dataclass(kw_only=True)
class MatchingSpace:
    """The number of comparisons with a memory, as Video-kMaX counts them (arXiv 2304.04694, supplement, table 2).

    The size at one clip is the number of objects in memory times the number of segments compared with them. Every clip
    counts, also with size 0.
    """

    clips: int = 0
    total: int = 0      # sum of all sizes
    largest: int = 0

    def add(self, size: int) -> None:
        """Count one clip."""
        self.merge(MatchingSpace(clips=1, total=size, largest=size))

    def merge(self, other: MatchingSpace) -> None:
        """Add the counts of another video or of another worker."""
        self.clips = self.clips + other.clips
        self.total = self.total + other.total
        self.largest = max(self.largest, other.largest)

    def summary(self) -> dict[str, float]:
        """Average and largest size; empty if no clip was counted."""
        return {"average": self.total / self.clips, "max": self.largest} if self.clips else {}


class Linker(Protocol):
    """Links one video, one `step` per clip. Its memory does not grow with the number of frames."""

    looks: Looks
    matching: MatchingSpace

    def step(self, clip: ClipSegments) -> np.ndarray:
        """The next clip -> track of each segment, m: 1 and up within its class for things, 0 for stuff."""
        ...


def start_tracks(tracks: np.ndarray, clip: ClipSegments, last: Counter[int]) -> None:
    """Give every thing without a track the next track of its class. last: class -> its last track, is updated."""
    for segment in np.flatnonzero(clip.is_thing & (tracks == 0)):
        label = int(clip.classes[segment])
        last[label] += 1
        tracks[segment] = last[label]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale each of m vectors, m d, to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def best_first(scores: np.ndarray, *, least: float) -> list[tuple[int, int]]:
    """One-to-one pairs (row, column) that score at least `least`: the best pair first, then the best of the others."""
    scores = scores.copy()
    pairs = []
    while scores.max(initial=-np.inf) >= least:
        row, column = np.unravel_index(scores.argmax(), scores.shape)
        pairs.append((int(row), int(column)))
        scores[row] = -np.inf
        scores[:, column] = -np.inf
    return pairs
