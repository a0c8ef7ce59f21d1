"""The numbers of an evaluation, and their draws of videos, from what `jobs.evaluate` kept of every video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.evaluate import VIDEOS
from model.association.linker import MatchingSpace
from pipeline.foreign_files import own_json
from pipeline.metrics.bootstrap import DRAWS, draws_of, numbers_of, resampled
from pipeline.metrics.scorecard import Scorecard, headline

MATCHING = "matching_space_"
OF_SETS = "ap_of_"

Numbers = dict[str, float | None]
Draws = dict[str, list[float | None]]


def read_scores(folder: Path, summary: Mapping[str, Any], metrics: Sequence[str]) -> tuple[Numbers, Draws]:
    """All numbers of an evaluation, and the draws of those that a table wants.

    folder: of its scores. summary: what `jobs.evaluate` returned. Without labels there are no numbers. AP of sets of
    videos has no draws.
    """
    videos = own_json(folder / VIDEOS, cure="Run jobs.evaluate again.")
    cards = {video: Scorecard.from_json(part["scores"]) for video, part in videos.items() if part["scores"]}
    matching = [MatchingSpace(**part["matching"]) for _, part in sorted(videos.items())]
    numbers = numbers_of(headline(Scorecard.sum_of(cards.values()).scores())) if cards else {}
    draws = resampled(cards, [metric for metric in metrics if metric in numbers])
    spaces = {f"{MATCHING}{name}": value for name, value in summary["matching_space"].items()}
    sets = {f"{OF_SETS}{name}": part["ap"] for name, part in summary["video_sets"].items()}
    draws |= {metric: matching_draws(matching, metric) for metric in metrics if metric in spaces}
    return numbers | spaces | sets, draws


def matching_draws(matching: Sequence[MatchingSpace], metric: str) -> list[float | None]:
    """The average or the largest matching space in each draw of videos."""
    results = []
    for times in draws_of(len(matching)):
        total = MatchingSpace()
        for count, space in zip(times, matching):
            for _ in range(count):
                total.merge(space)
        results.append(total.summary().get(metric.removeprefix(MATCHING)))
    return results


def counted(numbers: Mapping[str, float]) -> tuple[Numbers, Draws]:
    """Numbers that no draw of videos changes, such as parameters."""
    return dict(numbers), {name: [value] * DRAWS for name, value in numbers.items()}
