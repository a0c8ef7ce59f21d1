"""Scores of VPQ: scores per window and class, averages over windows, and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.metrics.numbers import NAN, cell, mean, percent

PROTOCOLS = ((1, 2, 4, 6), (1, 2, 4, 6, 8))    # the one that papers report; the one of VIPSeg's own script


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
