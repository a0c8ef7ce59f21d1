"""Video stitching: a thing keeps its track when its masks overlap in a frame that two clips share.

Neighbouring clips share `overlap` frames and both segment them, so that their segments can be compared by IoU. The pair
with the largest IoU goes first, then the best of the others (arXiv 2304.04694, section 3.2). Only overlapping segments
of one class are candidates.

`official_compat` follows the released code (dlsrbgg33/video_kmax,
`video_kmax_deeplab/utils/associater/video_stitching_module.py`): each side chooses in turn, and mutual choices become
pairs. Things and stuff of any class compete before classes are compared, leftover segments are paired even if their
masks do not overlap, and a pair that is best for both sides can be lost to an earlier choice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.association.linker import Looks, MatchingSpace, best_first, start_tracks
from model.contracts import ClipSegments


@dataclass(frozen=True, kw_only=True)
class StitchingConfig:
    """Link neighbouring clips by their shared frames alone; an object that is absent for a clip gets a new track."""

    kind: Literal["stitching"] = "stitching"
    overlap: int = 1                    # frames that neighbouring clips share
    official_compat: bool = False

    def build(self) -> StitchingLinker:
        """The linker of one video."""
        return StitchingLinker(self)

    def __post_init__(self) -> None:
        if self.overlap < 1:
            raise ValueError(f"stitching with overlap={self.overlap}: segments are compared on frames that two clips "
                             "share; set association.overlap=1, or choose memory_buffer or clip_wise")


class Stitcher:
    """Finds the segments of the last clip in the next one. It holds only that clip."""

    def __init__(self, *, official_compat: bool = False) -> None:
        self.official_compat = official_compat
        self._clip: ClipSegments | None = None
        self._tracks = np.zeros(0, dtype=np.int64)

    def match(self, clip: ClipSegments) -> np.ndarray:
        """Track of each segment, m; 0 for stuff and for things that the last clip does not show at the same place."""
        tracks = np.zeros(len(clip.classes), dtype=np.int64)
        if self._clip is None or not clip.shared:
            return tracks
        before = self._clip
        same_class = before.classes[:, None] == clip.classes[None]
        overlaps, present = overlap_of_segments(before, clip)
        if self.official_compat:
            pairs = mutual_pairs(np.where(present, overlaps, -1))
        else:
            pairs = best_first(np.where(same_class & (overlaps > 0), overlaps, -np.inf), least=0)
        for old, new in pairs:
            if same_class[old, new]:
                tracks[new] = self._tracks[old]
        return tracks

    def remember(self, clip: ClipSegments, tracks: np.ndarray) -> None:
        """Keep the clip, with its final tracks, for the next `match`."""
        self._clip = clip
        self._tracks = tracks


class StitchingLinker:
    """Stitching alone."""

    looks: Looks = "mask_embeddings"     # not used

    def __init__(self, config: StitchingConfig) -> None:
        self.matching = MatchingSpace()
        self._stitcher = Stitcher(official_compat=config.official_compat)
        self._last: Counter[int] = Counter()

    def step(self, clip: ClipSegments) -> np.ndarray:
        """See `Linker`."""
        tracks = self._stitcher.match(clip)
        start_tracks(tracks, clip, self._last)
        self._stitcher.remember(clip, tracks)
        return tracks


def overlap_of_segments(before: ClipSegments, after: ClipSegments) -> tuple[np.ndarray, np.ndarray]:
    """IoU of segments on the shared frames, m_before m_after; and whether both of a pair are present there, bool."""
    rows = len(before.classes) + 1
    columns = len(after.classes) + 1
    areas = np.zeros(rows * columns, dtype=np.int64)
    for old, new in zip(before.frames[-after.shared:], after.frames[:after.shared], strict=True):
        areas += np.bincount(((old + 1) * columns + (new + 1)).ravel(), minlength=rows * columns)
    areas = areas.reshape(rows, columns)                                            # row and column 0: void
    old = areas.sum(1)[1:, None]
    new = areas.sum(0)[None, 1:]
    common = areas[1:, 1:]
    return common / np.maximum(old + new - common, 1), (old > 0) & (new > 0)


def mutual_pairs(overlaps: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (row, column) that choose each other; an overlap of -1 is never chosen.

    Rows choose in the order of their best overlap; each takes its best free column. Columns do the same.
    """
    chosen = _choose(overlaps)
    choosing = _choose(overlaps.T)
    return [(row, column) for row, column in chosen.items() if choosing.get(column) == row]


def _choose(overlaps: np.ndarray) -> dict[int, int]:
    chosen: dict[int, int] = {}
    for row in np.argsort(-overlaps.max(1, initial=-1), kind="stable"):
        for column in np.argsort(-overlaps[row], kind="stable"):
            if overlaps[row, column] >= 0 and column not in chosen.values():
                chosen[int(row)] = int(column)
                break
    return chosen
