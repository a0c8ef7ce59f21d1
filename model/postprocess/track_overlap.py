"""How much the masks of tracks have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as run_lengths

from model.contracts import Track


def compare_tracks(predicted: Sequence[Track], targets: Sequence[Track]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU of all pairs (predicted x targets), and the mean area of each track in pixels, over the frames that show it.

    One call per frame compares all pairs in it. The number of shared pixels follows from the IoU, exactly, since it is
    a whole number: shared = iou (a + b) / (1 + iou).
    """
    areas = _areas(predicted)        # predicted T
    true_areas = _areas(targets)     # targets T
    shared = np.zeros((len(predicted), len(targets)))
    for frame in range(areas.shape[1] if targets else 0):
        rows = np.flatnonzero(areas[:, frame])
        columns = np.flatnonzero(true_areas[:, frame])
        if len(rows) and len(columns):
            ious = run_lengths.iou([predicted[i].masks[frame] for i in rows],
                                   [targets[i].masks[frame] for i in columns], [0] * len(columns))
            both = areas[rows, frame][:, None] + true_areas[columns, frame][None]
            shared[np.ix_(rows, columns)] += np.rint(ious * both / (1 + ious))
    union = areas.sum(1)[:, None] + true_areas.sum(1)[None] - shared
    return shared / np.maximum(union, 1), *(a.sum(1) / np.maximum((a > 0).sum(1), 1) for a in (areas, true_areas))


def _areas(tracks: Sequence[Track]) -> np.ndarray:
    frames = len(tracks[0].masks) if tracks else 0
    areas = np.zeros((len(tracks), frames))
    for row, track in zip(areas, tracks):
        present = [frame for frame, mask in enumerate(track.masks) if mask]
        row[present] = run_lengths.area([track.masks[frame] for frame in present])
    return areas
