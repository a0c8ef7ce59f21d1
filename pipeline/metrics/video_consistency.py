"""Video consistency mVC of semantic segmentation (Miao et al., VSPW, CVPR 2021): does the label of a still pixel stay?

In a window of n frames, G is the set of pixels whose true class is the same in all n, and P the set of pixels whose
predicted class is. VC is |G and P| / |G|; the predicted class need not be right. mVC_n is the mean over all windows of
all videos, at stride 1. Windows without a pixel in G are left out, and so are videos shorter than n.

The released script (VSPW_code, VC_perclip.py) never uses the last window of a video and counts unlabelled pixels as a
class of their own. `official_compat` does the same, for comparison with published numbers.
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
    mvc: Mapping[int, float]       # window -> mVC; NaN if every video is shorter
    windows: Mapping[int, int]     # window -> number of windows counted

    def summary(self) -> dict[str, float | None]:
        """In percent; None if there was nothing to score."""
        return {f"mvc{window}": percent(value) for window, value in self.mvc.items()}

    def table(self) -> str:
        """The scores in percent, as text."""
        lines = [f"{f'mVC{window}':<22}{cell(percent(value))}{self.windows[window]:>10} windows"
                 for window, value in self.mvc.items()]
        return "\n".join([*lines, f"{self.videos} videos, {self.frames} frames"])


class VideoConsistency(PerVideoMetric):
    """Accumulates mVC in one pass over the frames; parts of a data set merge exactly."""

    def __init__(self, classes: ClassTable, *, windows: Sequence[int] = WINDOWS, official_compat: bool = False) -> None:
        if not windows or min(windows) < 2 or len(set(windows)) != len(windows):
            raise ValueError(f"windows {tuple(windows)} must be different frame counts from 2 up, such as {WINDOWS}")
        super().__init__(classes, windows=sorted(windows), official_compat=official_compat)
        self.windows = tuple(sorted(windows))
        self.official_compat = official_compat

    def update(self, prediction: LabelVideo, truth: LabelVideo) -> None:
        """Score one video, semantic or panoptic. Raises BadInput, and counts nothing, as `score_video` does."""
        score_video([self], prediction, truth)

    def begin(self, truth: Side, prediction: Side) -> _Stillness:
        """Start a video, in a pass shared with other metrics."""
        return _Stillness(self, truth, prediction)

    def result(self) -> ConsistencyScores:
        """The scores of everything counted so far."""
        sums = {}
        counts = {}
        for index, window in enumerate(self.windows):
            parts = [record["windows"][index] for _, record in self.in_order()]
            sums[window] = fsum(part[0] for part in parts)
            counts[window] = sum(part[1] for part in parts)
        return ConsistencyScores(videos=len(self.videos), frames=self.frames(), windows=counts,
                                 mvc={window: sums[window] / counts[window] if counts[window] else NAN
                                      for window in self.windows})


NEVER = -1    # stands for the frame of a pixel without label


class _Stillness:
    """The frame since which each pixel has kept its class: in the truth, and in truth and prediction together.

    A pixel is updated only when one of its classes changes. A running count tells how many pixels have been still since
    each frame.
    """

    def __init__(self, metric: VideoConsistency, truth: Side, prediction: Side) -> None:
        self.metric = metric
        self.labels = len(metric.classes) + 1    # all classes, and void
        size = np.int16 if self.labels**2 < 2**15 else np.int32
        self.codes = (truth.classes * self.labels).astype(size), prediction.classes.astype(size)
        self.void = NEVER if metric.official_compat else len(metric.classes)         # the class that is never still
        self.before = np.zeros(0, size)                                              # pixels: code of both classes
        self.since = (np.zeros(0, np.int32), np.zeros(0, np.int32))                  # pixels: frame, or NEVER
        self.pixels = [np.zeros(1, np.int64), np.zeros(1, np.int64)]                 # by since + 1: number of pixels
        self.values: dict[int, list[float]] = {window: [] for window in metric.windows}

    def add(self, frame: FramePair) -> None:
        """Score the windows that end with this frame."""
        self._update(frame)
        for window, values in self.values.items():
            first = frame.index - window + 1
            if first >= 0:
                still, both_still = (int(pixels[1:first + 2].sum()) for pixels in self.pixels)
                values.append(both_still / still if still else NAN)

    def finish(self, video: str, frames: int) -> None:
        """Count the video."""
        rows: list[Any] = []
        for values in self.values.values():
            used = [value for value in (values[:-1] if self.metric.official_compat else values) if value == value]
            rows.append([fsum(used), len(used)])
        self.metric.videos[video] = {"frames": frames, "windows": rows}

    def _update(self, frame: FramePair) -> None:
        current = np.repeat(self.codes[0][frame.true] + self.codes[1][frame.predicted], frame.lengths)
        if frame.index == 0:
            self.before = np.full_like(current, -1)                                      # all pixels are new
            self.since = (np.full(current.size, NEVER, np.int32), np.full(current.size, NEVER, np.int32))
            self.pixels = [np.array([current.size]), np.array([current.size])]
        changed = np.flatnonzero(current != self.before)
        true = current[changed] // self.labels
        moved = true != self.before[changed] // self.labels                          # changed in the truth
        for index, (pixels, classes) in enumerate(((changed[moved], true[moved]), (changed, true))):
            removed = np.bincount(self.since[index][pixels] + 1, minlength=frame.index + 2)
            self.since[index][pixels] = np.where(classes == self.void, NEVER, frame.index)
            self.pixels[index] = np.append(self.pixels[index], 0) - removed
            self.pixels[index] += np.bincount(self.since[index][pixels] + 1, minlength=frame.index + 2)
        self.before = current
