"""Ranking settings by their scores: means over seeds, intervals over videos and seeds, differences to the first row.

Each draw of the bootstrap picks videos and seeds with replacement, the same ones for all settings, so that differences
are paired. An interval holds the middle 95 % of the draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.metrics.scorecard import lower_is_better

MIDDLE = (2.5, 97.5)        # percentiles


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trial, finished or failed."""

    name: str
    settings: tuple[str, ...]
    seed: int
    steps: int = 0
    seconds: float = 0.0                                        # of training
    loss: float = math.nan                                      # of the last interval of training
    numbers: dict[str, float | None] = field(default_factory=dict)
    draws: dict[str, list[float | None]] = field(default_factory=dict)     # number -> its value in each draw of videos
    error: str = ""

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> TrialResult:
        """What `dataclasses.asdict` made, from JSON."""
        return cls(**{**saved, "settings": tuple(saved["settings"])})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting in the ranked table."""

    settings: tuple[str, ...]
    seeds: int                          # that were scored
    score: float                        # mean over seeds; NaN where all trials failed
    interval: tuple[float, float]
    difference: tuple[float, float, float]      # to the first row, or to a reference: mean, and its interval
    failed: int
    error: str = ""                     # of its first failed trial


def ranked(results: Sequence[TrialResult], number: str, *, reference: tuple[str, ...] | None = None, seed: int = 0
           ) -> list[Row]:
    """One row for each setting, best first; settings whose trials all failed come last.

    number: which score; the results hold its draws, made with the same draws of videos. reference: the settings with
    which the others are compared; None: the best ones.
    """
    groups: dict[tuple[str, ...], list[TrialResult]] = {}
    for result in results:
        groups.setdefault(result.settings, []).append(result)
    means = {settings: _mean([result.numbers[number] for result in group if not result.error])
             for settings, group in groups.items()}
    order = sorted(groups, key=lambda settings: (math.isnan(means[settings]), _worse(means[settings], number)))
    draws = {settings: _drawn(groups[settings], number, seed=seed) for settings in order}
    first = reference or (order[0] if order else ())
    return [Row(settings=settings, seeds=sum(not result.error for result in groups[settings]), score=means[settings],
                interval=_middle(draws[settings]),
                difference=(means[settings] - means[first], *_middle(draws[settings] - draws[first])),
                failed=sum(bool(result.error) for result in groups[settings]),
                error=next((result.error for result in groups[settings] if result.error), ""))
            for settings in order]


def best_of(results: Sequence[TrialResult], number: str) -> TrialResult:
    """The trial with the best score."""
    return min(results, key=lambda result: _worse(result.numbers[number] or 0.0, number))


def _worse(score: float, number: str) -> float:
    """A key that sorts the best score first."""
    return score if lower_is_better(number) else -score


def _drawn(group: Sequence[TrialResult], number: str, *, seed: int) -> np.ndarray:
    """The score of a setting in each draw of videos and seeds; empty where no trial was scored."""
    scored = sorted((result for result in group if not result.error), key=lambda result: result.seed)
    if not scored:
        return np.array([np.nan])
    table = np.array([result.draws[number] for result in scored], dtype=float)          # seeds x draws
    picks = np.random.default_rng(seed).random((table.shape[1], len(scored)))           # the same for all settings
    chosen = (picks * len(scored)).astype(int)
    return np.take_along_axis(table.T, chosen, axis=1).mean(1)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


def _middle(values: np.ndarray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.percentile(known, MIDDLE)
    return float(low), float(high)


def table(rows: Sequence[Row], number: str) -> str:
    """The ranked table as text."""
    shown = _columns(rows)
    head = ["rank", *shown, "seeds", number, "95 % interval", "to the first", "95 % interval"]
    cells = [head]
    for rank, row in enumerate(rows, start=1):
        values = dict(setting.partition("=")[::2] for setting in row.settings)
        cells.append([str(rank), *(values.get(name, "") for name in shown), str(row.seeds), *_scores(row, rank)])
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)


def _scores(row: Row, rank: int) -> list[str]:
    """The cells of one row from its score on."""
    if not row.seeds:
        return [f"failed: {row.error[:60]}", "", "", ""]
    if math.isnan(row.score):
        return ["nothing to score", "", "", ""]
    to_first = ["", ""] if rank == 1 else [f"{row.difference[0]:+.2f}", _span(row.difference[1:])]
    return [f"{row.score:.2f}", _span(row.interval), *to_first]


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(setting.partition("=")[0] for row in rows for setting in row.settings))


def _span(interval: Sequence[float]) -> str:
    return f"{interval[0]:.2f} to {interval[1]:.2f}"
