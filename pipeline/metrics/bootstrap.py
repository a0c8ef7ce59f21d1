"""How far a score would move with other videos: the bootstrap over videos (Efron 1979).

Scores such as VPQ and AP are no means over videos, so each draw counts its videos anew. Draws are the same for all
systems that were scored on the same videos, which makes their differences paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.metrics.scorecard import Metric, Scorecard

DRAWS = 200


def draws_of(videos: int, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each video is drawn: draws x videos, rows that sum to `videos`."""
    random = np.random.default_rng(seed)
    return random.multinomial(videos, np.full(videos, 1 / videos), size=draws)


def resampled(cards: Mapping[str, Scorecard], number: str, *, draws: int = DRAWS, seed: int = 0) -> list[float | None]:
    """One number of the scores (`numbers_of`) in each draw. cards: video -> its own scorecard.

    None for a draw in which there is nothing to score. Raises ValueError for a number that the scores lack.
    """
    ordered = [card for _, card in sorted(cards.items())]
    metrics = [_metric_of(card, number) for card in ordered]
    results = []
    for times in draws_of(len(metrics), draws=draws, seed=seed):
        drawn = [metric.repeated(int(count)) for metric, count in zip(metrics, times) if count]
        total = drawn[0]
        for metric in drawn[1:]:
            total.merge(metric)
        results.append(numbers_of(total.result().summary())[number])
    return results


def numbers_of(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Every number of a summary under one name; VPQ of a window is `vpq_k12`."""
    windows = {f"vpq_k{window}": value for window, value in summary.get("vpq_by_window", {}).items()}
    numbers = {name: value for name, value in summary.items() if value is None or isinstance(value, (int, float))}
    return numbers | windows


def _metric_of(card: Scorecard, number: str) -> Metric:
    metrics: Sequence[Metric] = [metric for group in card.metrics.values() for metric in group.values()]
    names: list[str] = []
    for metric in metrics:
        known = numbers_of(metric.result().summary())
        if number in known:
            return metric
        names += known
    raise ValueError(f"there is no number {number!r} among the scores; choose one of {', '.join(names)}")
