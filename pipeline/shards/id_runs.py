"""The id map of a frame as runs of equal ids: what run lengths and label maps become before a pixel is painted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.datasets.run_lengths import RunLengths, runs_of
from pipeline.records import Mask

_ONE_MASK = 2**32       # counts masks in the upper half of a number, whose lower half sums their ids


@dataclass(frozen=True, slots=True, kw_only=True)
class IdRuns:
    """Runs of equal ids that fill a frame, row after row, or column after column as in COCO's run lengths."""

    ids: np.ndarray             # n
    lengths: np.ndarray         # n pixels; 0 is allowed
    size: tuple[int, int]       # height and width of the frame
    by_column: bool = False

    def pixels(self, count: int) -> np.ndarray:
        """Pixels of every id from 0 to count - 1, int64."""
        return np.bincount(self.ids, self.lengths, minlength=count).astype(np.int64)

    def painted(self, out: np.ndarray | None = None) -> np.ndarray:
        """The map, H W, with the type of `ids`. out: where it is painted, if given."""
        height, width = self.size
        flat = np.repeat(self.ids, self.lengths)
        if self.by_column:
            return cv2.transpose(flat.reshape(width, height), out)
        if out is None:
            return flat.reshape(height, width)
        out[...] = flat.reshape(height, width)
        return out


def map_runs(ids: np.ndarray) -> IdRuns:
    """The runs of a map, H W, row after row."""
    flat = ids.ravel()
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    return IdRuns(ids=flat[starts], lengths=np.diff(starts, append=flat.size), size=ids.shape)


def mask_runs(borders: Mapping[int, np.ndarray], size: tuple[int, int],
              shared_id: Callable[[tuple[int, ...]], int]) -> IdRuns:
    """The runs of several masks. borders: id -> `mask_borders` of its mask. No mask is painted on its own.

    shared_id: gives the id of pixels that several masks cover; it is asked once for each set of ids of the frame,
    those that lack the lowest ids first.
    """
    events = np.concatenate([*borders.values(), np.zeros(0, np.int64)])
    changes = np.repeat(np.array([*borders, 0]) + _ONE_MASK, [*map(len, borders.values()), 0])
    changes[1::2] *= -1                                                     # a mask begins, then it ends
    order = np.argsort(events, kind="stable")
    starts = np.concatenate([[0], events[order]])
    lengths = np.concatenate([starts[1:], [size[0] * size[1]]]) - starts
    sums = np.add.accumulate(np.concatenate([[0], changes[order]]))         # of the ids and number of masks over a run
    ids = sums & (_ONE_MASK - 1)                                            # the id itself under one mask
    shared = (sums >= 2 * _ONE_MASK) & (lengths > 0)
    if shared.any():
        ids[shared] = _shared_ids(borders, starts[shared], shared_id)
    ids[lengths == 0] = 0
    return IdRuns(ids=ids, lengths=lengths, size=size, by_column=True)


def _shared_ids(borders: Mapping[int, np.ndarray], starts: np.ndarray,
                shared_id: Callable[[tuple[int, ...]], int]) -> np.ndarray:
    """The ids of runs under several masks. starts: the first pixel of each run."""
    ids = sorted(borders)
    covers = np.stack([np.searchsorted(borders[id], starts, side="right") % 2 == 1 for id in ids])    # masks x runs
    groups, group_of = np.unique(covers, axis=1, return_inverse=True)
    named = [shared_id(tuple(id for id, covered in zip(ids, group) if covered)) for group in groups.T]
    return np.array(named)[group_of.ravel()]


def mask_borders(mask: Mask, size: tuple[int, int]) -> np.ndarray:
    """Where a mask begins and ends, in turns: positions in the frame column after column, int64, an even number.

    Raises ValueError for counts that do not fill a frame of `size`, before memory for them is taken.
    """
    if isinstance(mask, RunLengths) and mask.size == size:
        return mask.borders
    counts = mask["counts"]
    pixels = size[0] * size[1]
    if isinstance(counts, list):
        if sum(counts) != pixels or min(counts) < 0:
            raise ValueError(f"they sum to {sum(counts)}, and the smallest is {min(counts, default=0)}")
        runs = np.array(counts, np.int64)
    else:
        runs = runs_of(counts if isinstance(counts, str) else counts.decode("latin-1"))
        if runs is None or runs.sum() != pixels:
            raise ValueError("they cannot be read" if runs is None else f"they sum to {runs.sum()}")
    return np.cumsum(runs)[:len(runs) // 2 * 2]
