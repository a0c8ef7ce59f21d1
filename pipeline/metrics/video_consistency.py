"""Video consistency mVC of semantic segmentation (Miao et al., VSPW, CVPR 2021): does the label of a still pixel hold?

Inside a window of n frames, G are the pixels whose true class is the same in all n, P those whose predicted class is;
VC is |G and P| / |G|. Whether the predicted class is right is not asked. mVC_n is the mean over all windows, stride 1,
of all videos; a window without such pixels and a video shorter than n are left out.

The released script (VSPW_code, VC_perclip.py) never uses the last window of a video and takes unlabelled pixels for a
class of their own; `official_compat` does the same, for comparison with published numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np

from model.labels import ClassTable
from pipeline.metrics.frame_pass import FramePair, LabelVideo, Side, score_video
from pipeline.metrics.numbers import NAN, cell, percent
from pipeline.metrics.per_video import PerVideoMetric

WINDOWS = (8, 16)    # frames, as published


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyScores:
    """Result of `VideoConsistency`. Fractions everywhere, percent in `summary` and `table`, as papers print them."""

    videos: int
    frames: int
    mvc: Mapping[int, float]       # window -> mVC, NaN where every video is shorter
    windows: Mapping[int, int]     # window -> how many were counted

    def summary(self) -> dict[str, float | None]:
        """In percent; None where nothing was to be scored."""
        return {f"mvc{window}": percent(value) for window, value in self.mvc.items()}

    def table(self) -> str:
        """The scores in percent, for people."""
        lines = [f"{f'mVC{window}':<22}{cell(percent(value))}{self.windows[window]:>10} windows"
                 for window, value in self.mvc.items()]
        return "\n".join([*lines, f"{self.videos} videos, {self.frames} frames"])


class VideoConsistency(PerVideoMetric):
    """Accumulates mVC in one pass over the frames; parts of a data set merge exactly."""

    def __init__(self, classes: ClassTable, *, windows: Sequence[int] = WINDOWS, official_compat: bool = False) -> None:
        if not windows or min(windows) < 2 or len(set(windows)) != len(windows):
            raise ValueError(f"windows {tuple(windows)} must be different frame counts from 2 up, such as {WINDOWS}")
        super().__init__(classes, windows=sorted(windows), official_compat=official_compat)
        self.windows, self.official_compat = tuple(sorted(windows)), official_compat

    def update(self, prediction: LabelVideo, truth: LabelVideo) -> None:
        """Score one video, semantic or panoptic. Raises BadInput, and counts nothing, as `score_video` says."""
        score_video([self], prediction, truth)

    def begin(self, truth: Side, prediction: Side) -> _Stillness:
        """Start with a video, in a walk shared with other metrics."""
        return _Stillness(self, truth, prediction)

    def result(self) -> ConsistencyScores:
        """The scores of everything counted so far."""
        sums, counts = {}, {}
        for index, window in enumerate(self.windows):
            parts = [record["windows"][index] for _, record in self.in_order()]
            sums[window], counts[window] = fsum(part[0] for part in parts), sum(part[1] for part in parts)
        return ConsistencyScores(videos=len(self.videos), frames=self.frames(), windows=counts,
                                 mvc={window: sums[window] / counts[window] if counts[window] else NAN
                                      for window in self.windows})


class _Stillness:
    """Since which frame every pixel has kept its class: in the truth, and in truth and prediction together."""

    def __init__(self, metric: VideoConsistency, truth: Side, prediction: Side) -> None:
        self.metric = metric
        self.classes = [side.classes.astype(np.int32) for side in (truth, prediction)]
        self.before: list[np.ndarray] = []      # two maps of the frame before, a number per pixel
        self.since: list[np.ndarray] = []       # two maps, int32: frame since which that number is the same
        self.values: dict[int, list[float]] = {window: [] for window in metric.windows}

    def add(self, frame: FramePair) -> None:
        """Score the windows that end with this frame."""
        self._look(frame)
        for window, values in self.values.items():
            first = frame.index - window + 1
            if first >= 0:
                still, both_still = (int(np.count_nonzero(since <= first)) for since in self.since)
                values.append(both_still / still if still else NAN)

    def finish(self, video: str, frames: int) -> None:
        """Count the video."""
        rows: list[Any] = []
        for values in self.values.values():
            used = [value for value in (values[:-1] if self.metric.official_compat else values) if value == value]
            rows.append([fsum(used), len(used)])
        self.metric.videos[video] = {"frames": frames, "windows": rows}

    def _look(self, frame: FramePair) -> None:
        true, predicted = self.classes[0][frame.true], self.classes[1][frame.predicted]         # runs
        joint = true * (len(self.metric.classes) + 1) + predicted
        now = [np.repeat(runs, frame.lengths) for runs in (true, joint)]                        # pixels
        if not self.since:
            self.since = [np.zeros(values.size, np.int32) for values in now]
        else:
            for since, values, before in zip(self.since, now, self.before, strict=True):
                np.putmask(since, values != before, frame.index)
        self.before = now
        if not self.metric.official_compat and not frame.true.all():                            # void is segment 0
            void = np.repeat(frame.true == 0, frame.lengths)
            for since in self.since:
                np.putmask(since, void, frame.index + 1)        # not still before the next frame
