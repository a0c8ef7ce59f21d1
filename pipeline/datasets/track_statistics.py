"""How hard a data set is to track: how often things hide, and how often looks and nearness alone lose their identity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.errors import BadInput
from pipeline.records import Dataset, FrameRecord, VideoRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackStatistics:
    """Counts over some videos. A hiding is a stretch of frames without the thing between two with it."""

    tracks: int = 0             # things that show in at least one frame
    hidings: int = 0
    long_hidings: int = 0       # of at least `long` frames
    handovers: int = 0          # neighbouring appearances of a track, counted in clips
    breaks: int = 0             # handovers at which the naive association changes the id

    def __add__(self, other: TrackStatistics) -> TrackStatistics:
        return TrackStatistics(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    @property
    def break_rate(self) -> float:
        """Share of handovers that break."""
        return self.breaks / max(1, self.handovers)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the naive association sees of a thing in one clip."""

    track: int
    class_index: int
    position: np.ndarray    # 2, centre as fractions of the shorter side
    color: np.ndarray       # 3, mean, 0-1


def track_statistics(dataset: Dataset, video_ids: Iterable[str], *, clip_length: int = 2,
                     long: int = 4) -> TrackStatistics:
    """Walk through labelled videos of a data set with id maps. Raises `BadInput` for what cannot be read.

    The naive association takes the true segments of clips of `clip_length` frames and links neighbouring clips by
    mean colour and place: segmentation is perfect, so what breaks is identity alone.
    """
    total = TrackStatistics()
    for video_id in video_ids:
        video = dataset.read(video_id)
        looks = [_looks(dataset, video, frame) for frame in video.frames]
        clips = [_clip_looks(looks[start:start + clip_length]) for start in range(0, len(looks), clip_length)]
        total += _hidings(looks, long) + _breaks(clips, associate(clips))
    return total


def associate(clips: list[list[_Look]]) -> list[list[int]]:
    """An id for every thing of every clip, linking neighbouring clips only; who is not linked gets a new id."""
    ids, fresh = [], 0
    for previous, clip in zip([[], *clips], clips):
        cost = np.array([[_distance(new, old) for old in previous] for new in clip]).reshape(len(clip), len(previous))
        linked = {new: ids[-1][old] for new, old in zip(*linear_sum_assignment(cost)) if cost[new, old] < np.inf} \
            if np.isfinite(cost).any() else {}
        ids.append([])
        for new in range(len(clip)):
            fresh += new not in linked
            ids[-1].append(linked.get(new, fresh))
    return ids
