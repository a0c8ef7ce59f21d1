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


def resampled(cards: Mapping[str, Scorecard], numbers: Sequence[str], *, draws: int = DRAWS,
              seed: int = 0) -> dict[str, list[float | None]]:
    """Numbers of the scores (`numbers_of`) in each draw, by name. cards: video -> its own scorecard.

    None for a draw in which there is nothing to score. Raises ValueError for a number that the scores lack.
    """
    ordered = [card for _, card in sorted(cards.items())]
    results: dict[str, list[float | None]] = {number: [] for number in numbers}
    places = {number: _place_of(ordered[0], number) for number in results}
    for result, name in dict.fromkeys(places.values()):
        metrics = [card.metrics[result][name] for card in ordered]
        wanted = [number for number, place in places.items() if place == (result, name)]
        for times in draws_of(len(metrics), draws=draws, seed=seed):
            known = numbers_of(_drawn(metrics, times).result().summary())
            for number in wanted:
                results[number].append(known[number])
    return results


def _drawn(metrics: Sequence[Metric], times: np.ndarray) -> Metric:
    """Each metric as often as it was drawn, merged into one."""
    total, *others = [metric.repeated(int(count)) for metric, count in zip(metrics, times) if count]
    for metric in others:
        total.merge(metric)
    return total


def numbers_of(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Every number of a summary under one name; VPQ of a window is `vpq_k12`."""
    windows = {f"vpq_k{window}": value for window, value in summary.get("vpq_by_window", {}).items()}
    numbers = {name: value for name, value in summary.items() if value is None or isinstance(value, (int, float))}
    return numbers | windows


def _place_of(card: Scorecard, number: str) -> tuple[str, str]:
    """The result and the name of the metric that has a number; several numbers of one metric are drawn together."""
    names: list[str] = []
    for result, metrics in card.metrics.items():
        for name, metric in metrics.items():
            known = numbers_of(metric.result().summary())
            if number in known:
                return result, name
            names += known
    raise ValueError(f"there is no number {number!r} among the scores; choose one of {', '.join(names)}")
