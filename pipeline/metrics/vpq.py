"""Video panoptic quality as VIPSeg defines it (Kim et al., arXiv 2006.11339; VIPSeg-Dataset, eval_vpq_vspw.py).

A window of k frames slides over a video with stride 1; a tube consists of all pixels of one id in the window. For a
true and a predicted tube of one class, union = true + predicted - intersection - predicted pixels on void, and an IoU
above 0.5 is a true positive. Every other true tube is a false negative, every other predicted tube a false positive,
with two exceptions: crowd is never a target, and a predicted tube does not count if more than half of it lies on void
and on crowd of its class. Counts are summed over all windows of all videos; PQ of a class = sum of IoU / (tp + fp/2 +
fn/2); VPQ^k is the mean over the classes that occur in truth or prediction, and VPQ is the mean of VPQ^k. A video
shorter than k adds nothing to VPQ^k.

Areas are counted from the maps. The official script takes true areas from the json, which are the same numbers in a
well-formed data set. If a window has several crowds of one class, the script uses only the last one listed; here all
count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.contracts import PanopticVideo
from model.labels import ClassTable
from pipeline.metrics.frame_pass import FramePair, Side, score_video
from pipeline.metrics.numbers import NAN, cell, mean, percent

PROTOCOLS = ((1, 2, 4, 6), (1, 2, 4, 6, 8))    # the one that papers report; the one of VIPSeg's own script
WINDOWS = (1, 2, 4, 6, 8, 12)    # both published protocols, and 12 to show how long identities last
# An IoU above 0.5 is a double in (0.5, 1] and thus a multiple of 2^-53. Sums in this unit are exact integers, so
# merging in any order gives the same bits.
IOU_UNITS = 2**53


class VPQ:
    """Accumulates VPQ for any window lengths in one pass over the frames; parts of a data set merge exactly."""

    def __init__(self, classes: ClassTable, *, windows: Sequence[int] = WINDOWS) -> None:
        if not windows or min(windows) < 1 or len(set(windows)) != len(windows):
            raise ValueError(f"windows {tuple(windows)} must be different frame counts from 1 up, such as {WINDOWS}")
        self.classes = classes
        self.windows = tuple(sorted(windows))
        self.videos: dict[str, int] = {}                                       # video -> frames
        self._counts = {k: np.zeros((3, len(classes)), np.int64) for k in self.windows}    # tp, fp, fn of each class
        self._iou = {k: [0] * len(classes) for k in self.windows}                          # in IOU_UNITS

    def update(self, prediction: PanopticVideo, truth: PanopticVideo) -> None:
        """Score one video. Frames are streamed; only the tables of areas of the longest window are kept.

        Raises BadInput, and counts nothing, for the reasons `score_video` lists.
        """
        score_video([self], prediction, truth)

    def begin(self, truth: Side, prediction: Side) -> _Windows:
        """Start a video, in a pass shared with other metrics."""
        return _Windows(self, truth, prediction)

    def count(self, video: str, frames: int, counts: Mapping[int, np.ndarray],
              iou: Mapping[int, Sequence[tuple[int, int]]]) -> None:
        """Add the windows of one video: tp, fp, fn of each class, and class and IoU of each tp."""
        self.videos[video] = frames
        for k in self.windows:
            self._counts[k] += counts[k]
            for class_index, units in iou[k]:
                self._iou[k][class_index] += units

    def merge(self, other: VPQ) -> None:
        """Add the counts of `other`. Raises ValueError if classes or windows differ, or if both have scored a video."""
        if (self.classes, self.windows) != (other.classes, other.windows):
            raise ValueError(f"scores of class table {other.classes.name!r}, windows {other.windows} cannot be merged "
                             f"into {self.classes.name!r}, {self.windows}; score all parts with the same two")
        if both := sorted(self.videos.keys() & other.videos.keys()):
            raise ValueError(f"{len(both)} videos would count twice, first {both[0]!r}; score each video in one part")
        self.videos |= other.videos
        for k in self.windows:
            self._counts[k] += other._counts[k]
            self._iou[k] = [a + b for a, b in zip(self._iou[k], other._iou[k])]

    def repeated(self, times: int) -> VPQ:
        """The same counts as often as `times`, of videos with names of their own: one draw of a bootstrap."""
        result = VPQ(self.classes, windows=self.windows)
        result.videos = {f"{video}#{time}": frames for video, frames in self.videos.items() for time in range(times)}
        result._counts = {k: times * counts for k, counts in self._counts.items()}
        result._iou = {k: [times * units for units in iou] for k, iou in self._iou.items()}
        return result

    def result(self) -> VPQScores:
        """The scores of everything counted so far."""
        table = {k: tuple(ClassScore(name=info.name, is_thing=info.is_thing, iou=units / IOU_UNITS, tp=tp, fp=fp, fn=fn)
                          for info, units, (tp, fp, fn) in zip(self.classes.classes, self._iou[k],
                                                               self._counts[k].T.tolist()))
                 for k in self.windows}
        return VPQScores(videos=len(self.videos), frames=sum(self.videos.values()), per_class=table)

    def to_json(self) -> dict[str, Any]:
        """All counts as plain values. Each worker scores a part; `from_json` and `merge` join the parts."""
        return {"classes": self.classes.to_json(), "videos": dict(sorted(self.videos.items())),
                "windows": [{"frames": k, "counts": self._counts[k].tolist(), "iou": self._iou[k]}
                            for k in self.windows]}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> VPQ:
        """Read what `to_json` wrote."""
        vpq = cls(ClassTable.from_json(saved["classes"]), windows=[part["frames"] for part in saved["windows"]])
        vpq.videos = dict(saved["videos"])
        for part in saved["windows"]:
            vpq._counts[part["frames"]][:] = part["counts"]
            vpq._iou[part["frames"]] = list(part["iou"])
        return vpq


class _Windows:
    """All windows of one video."""

    def __init__(self, metric: VPQ, truth: Side, prediction: Side) -> None:
        self.metric = metric
        self.tubes = _Tubes(truth, prediction)
        self.counts = {k: np.zeros((3, len(metric.classes)), np.int64) for k in metric.windows}
        self.iou: dict[int, list[tuple[int, int]]] = {k: [] for k in metric.windows}
        self.sliding = {k: np.zeros(self.tubes.shape, np.int64) for k in metric.windows}
        self.recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=max(metric.windows) + 1)    # pairs, areas

    def add(self, frame: FramePair) -> None:
        """Move every window on by one frame and score the full ones."""
        self.recent.append((frame.pairs, frame.areas))
        for k, areas in self.sliding.items():
            flat = areas.reshape(-1)
            flat[frame.pairs] += frame.areas
            if frame.index >= k:
                pairs, pixels = self.recent[-1 - k]
                flat[pairs] -= pixels
            if frame.index >= k - 1:
                self.iou[k].extend(self.tubes.score(areas, self.counts[k]))

    def finish(self, video: str, frames: int) -> None:
        """Count the video."""
        self.metric.count(video, frames, self.counts, self.iou)


class _Tubes:
    """The pairs of tubes that can match in a video. Scores one window from the areas that pairs share."""

    def __init__(self, truth: Side, prediction: Side) -> None:
        self.truth = truth
        self.prediction = prediction
        self.shape = (len(truth.ids), len(prediction.ids))
        same = truth.classes[:, None] == prediction.classes[None]
        same[0] = same[:, 0] = False
        self.candidates = np.nonzero(same & ~truth.is_crowd[:, None])
        self.crowds = np.nonzero(same & truth.is_crowd[:, None])

    def score(self, areas: np.ndarray, counts: np.ndarray) -> list[tuple[int, int]]:
        """Count one window. areas: truth x prediction, pixels. Adds to tp, fp, fn; returns class and IoU of each tp."""
        true_area = areas.sum(1)
        area = areas.sum(0)
        on_void = areas[0]
        true, predicted = self.candidates
        common = areas[true, predicted]
        union = true_area[true] + area[predicted] - common - on_void[predicted]
        hit = 2 * common > union                                  # at most one per tube, since above a half
        matched = self.truth.classes[true[hit]]
        missed = (true_area > 0) & ~self.truth.is_crowd
        wrong = area > 0
        missed[true[hit]] = wrong[predicted[hit]] = wrong[0] = False
        crowd, covered = self.crowds
        forgiven = on_void + np.bincount(covered, areas[crowd, covered], len(area))
        wrong &= 2 * forgiven <= area
        for row, classes in enumerate((matched, self.prediction.classes[wrong], self.truth.classes[missed])):
            counts[row] += np.bincount(classes, minlength=counts.shape[1])
        units = common[hit] / union[hit] * IOU_UNITS
        return list(zip(matched.tolist(), units.astype(np.int64).tolist()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One class at one window length, over all windows of all videos."""

    name: str
    is_thing: bool
    iou: float    # sum over the true positives
    tp: int
    fp: int
    fn: int

    @property
    def occurs(self) -> bool:
        """Whether truth or prediction has a tube of this class; other classes are left out of the mean."""
        return self.tp + self.fp + self.fn > 0

    @property
    def pq(self) -> float:
        """Panoptic quality, 0 to 1."""
        return self.iou / (self.tp + self.fp / 2 + self.fn / 2) if self.occurs else NAN


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """VPQ of all, thing and stuff classes, 0 to 1; NaN if no class occurs."""

    all: float
    thing: float
    stuff: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VPQScores:
    """Result of `VPQ`. Fractions everywhere, percent in `summary` and `table`, as papers print them."""

    videos: int
    frames: int
    per_class: Mapping[int, tuple[ClassScore, ...]]    # window -> one entry per class of the table

    def of(self, window: int) -> Quality:
        """VPQ^window: the mean over the classes that occur; NaN if every video is shorter than the window."""
        if window not in self.per_class:
            raise ValueError(f"window {window} was not scored, only {tuple(self.per_class)} were; "
                             "add it to VPQ(windows=...)")
        rows = [row for row in self.per_class[window] if row.occurs]
        return Quality(all=mean(row.pq for row in rows), thing=mean(row.pq for row in rows if row.is_thing),
                       stuff=mean(row.pq for row in rows if not row.is_thing))

    def mean(self, windows: Sequence[int] = PROTOCOLS[0]) -> Quality:
        """VPQ: the plain mean of VPQ^k over the windows of a protocol."""
        parts = [self.of(window) for window in windows]
        return Quality(all=mean(p.all for p in parts), thing=mean(p.thing for p in parts),
                       stuff=mean(p.stuff for p in parts))

    def summary(self, windows: Sequence[int] = PROTOCOLS[0]) -> dict[str, Any]:
        """The mean over `windows` and VPQ of every window, in percent; None if there was nothing to score."""
        average = self.mean(windows)
        return {"vpq": percent(average.all), "vpq_thing": percent(average.thing), "vpq_stuff": percent(average.stuff),
                "vpq_by_window": {str(k): percent(self.of(k).all) for k in self.per_class}}

    def class_rows(self, windows: Sequence[int] = PROTOCOLS[0]) -> list[dict[str, Any]]:
        """One row per class that occurs: the mean PQ, in percent, over those of `windows` in which it occurs, and the
        counts of the shortest window."""
        first = min(windows)
        rows = []
        for index, row in enumerate(self.per_class[first]):
            if row.occurs:
                pq = mean(self.per_class[k][index].pq for k in windows if self.per_class[k][index].occurs)
                rows.append({"class": row.name, "thing": row.is_thing, "vpq": percent(pq), "tp": row.tp, "fp": row.fp,
                             "fn": row.fn, "mean_iou": percent(row.iou / row.tp if row.tp else NAN)})
        return rows

    def table(self) -> str:
        """Scores in percent, as text: a line per window, and a line per protocol whose windows were all scored."""
        lines = [f"{'VPQ':<22}{'all':>8}{'thing':>8}{'stuff':>8}"]
        lines += [_line(f"window {window}", self.of(window)) for window in self.per_class]
        lines += [_line(f"mean {', '.join(map(str, windows))}", self.mean(windows)) for windows in PROTOCOLS
                  if set(windows) <= self.per_class.keys()]
        return "\n".join([*lines, f"{self.videos} videos, {self.frames} frames"])

    def class_table(self, windows: Sequence[int] = PROTOCOLS[0]) -> str:
        """`class_rows` as text."""
        first = min(windows)
        lines = [f"{'class':<28}{'VPQ':>8}{'IoU':>8}{f'TP^{first}':>8}{f'FP^{first}':>8}{f'FN^{first}':>8}"]
        for row in self.class_rows(windows):
            lines.append(f"{row['class'][:27]:<28}{cell(row['vpq'])}{cell(row['mean_iou'])}"
                         f"{row['tp']:>8}{row['fp']:>8}{row['fn']:>8}")
        return "\n".join(lines)


def _line(name: str, quality: Quality) -> str:
    return f"{name:<22}" + "".join(cell(percent(v)) for v in (quality.all, quality.thing, quality.stuff))
