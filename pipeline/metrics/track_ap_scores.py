"""Scores of track AP: precision and recall of ranked predictions, the measures computed from them, and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.metrics.numbers import NAN, cell, mean, percent

CAPS = (1, 10, 100)    # number of predictions per video and class that count, best scores first
MOST = max(CAPS)
# Mean area of a track in pixels; four times COCO's limits, both ends inclusive.
AREAS = {"all": (0, 1e10), "small": (0, 128**2), "medium": (128**2, 256**2), "large": (256**2, 1e10)}
RECALLS = np.linspace(0, 1, 101)
# positions of the IoU thresholds 0.5 and 0.75
AP50 = 0
AP75 = 5
HEADLINE = ("ap", "ap50", "ap75", "ar1", "ar10")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAP:
    """One class. measures: ap, ap50, ap75, ar1, ar10, ar100 and ap_small ... ar_large, 0 to 1; NaN without a target."""

    name: str
    tracks: int    # true tracks that are not ignored
    measures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackAPScores:
    """Result of `TrackAP`. Fractions everywhere, percent in `summary` and `table`, as papers print them."""

    videos: int
    frames: int
    per_class: tuple[ClassAP, ...]    # one entry per class of the table

    def of(self, measure: str) -> float:
        """A measure, averaged over the classes that have a target for it; NaN if none has one."""
        return mean(value for row in self.per_class if (value := row.measures[measure]) == value)

    def summary(self) -> dict[str, float | None]:
        """Every measure in percent; None if there was nothing to score."""
        return {measure: percent(self.of(measure)) for measure in self.per_class[0].measures}

    def class_rows(self) -> list[dict[str, Any]]:
        """One row per class that occurs in the truth, in percent."""
        return [{"class": row.name, "tracks": row.tracks, **{m: percent(row.measures[m]) for m in HEADLINE}}
                for row in self.per_class if row.tracks]

    def table(self) -> str:
        """Scores in percent, as text: the headline, and AP and AR by area."""
        lines = ["".join([f"{'tracks':<22}", *(f"{measure.upper():>8}" for measure in HEADLINE)]),
                 "".join([f"{'all':<22}", *(cell(percent(self.of(measure))) for measure in HEADLINE)])]
        lines += ["".join([f"{area:<22}", cell(percent(self.of(f"ap_{area}"))), f"{'AR100':>16}",
                           cell(percent(self.of(f"ar_{area}")))]) for area in list(AREAS)[1:]]
        return "\n".join([*lines, f"{self.videos} videos, {self.frames} frames"])

    def class_table(self) -> str:
        """`class_rows` as text."""
        lines = ["".join([f"{'class':<28}", *(f"{m.upper():>8}" for m in HEADLINE), f"{'tracks':>8}"])]
        lines += ["".join([f"{row['class'][:27]:<28}", *(cell(row[m]) for m in HEADLINE), f"{row['tracks']:>8}"])
                  for row in self.class_rows()]
        return "\n".join(lines)


def sets_table(by_set: Mapping[str, Mapping[str, float | None]]) -> str:
    """The result of `TrackAP.by_set` as text."""
    lines = ["".join([f"{'videos':<22}", *(f"{measure.upper():>8}" for measure in HEADLINE)])]
    lines += ["".join([f"{name:<22}", *(cell(summary[measure]) for measure in HEADLINE)])
              for name, summary in by_set.items()]
    return "\n".join(lines)


def measures(outcomes: Mapping[int, np.ndarray], targets: np.ndarray) -> dict[str, float]:
    """All measures of one class.

    outcomes: for each cap the ranked predictions, areas thresholds n: 0 wrong, 1 right, 2 ignored. targets: areas.
    """
    scores = {"ap": NAN, "ap50": NAN, "ap75": NAN, **{f"ar{cap}": NAN for cap in CAPS}}
    scores |= {f"{kind}_{area}": NAN for kind in ("ap", "ar") for area in list(AREAS)[1:]}
    for index, (area, count) in enumerate(zip(AREAS, targets.tolist())):
        if count:
            precision = interpolated_precision(outcomes[MOST][index], count).mean(-1)             # thresholds
            if area == "all":
                scores |= {"ap": float(precision.mean()), "ap50": float(precision[AP50]),
                           "ap75": float(precision[AP75]),
                           **{f"ar{cap}": recall(outcomes[cap][index], count) for cap in CAPS}}
            else:
                scores |= {f"ap_{area}": float(precision.mean()), f"ar_{area}": recall(outcomes[MOST][index], count)}
    return scores


def recall(outcomes: np.ndarray, targets: int) -> float:
    """Share of the targets that are found, averaged over the thresholds. outcomes: thresholds n."""
    return float((outcomes == 1).sum(-1).mean() / targets)


def interpolated_precision(outcomes: np.ndarray, targets: int) -> np.ndarray:
    """The best precision at a recall of at least 0, 0.01, ... 1, and 0 if no recall is that high: thresholds 101."""
    right, wrong = (np.cumsum(outcomes == kind, -1) for kind in (1, 0))                            # thresholds n
    precision = right / np.maximum(right + wrong, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], -1)[:, ::-1]
    padded = np.concatenate([precision, np.zeros((len(precision), 1))], -1)
    return np.stack([row[np.searchsorted(hits / targets, RECALLS)] for row, hits in zip(padded, right)])
