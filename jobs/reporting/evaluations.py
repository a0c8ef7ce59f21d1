"""The ways in which the videos of a run were made and scored, as `jobs.evaluate` left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jobs.console import say
from model.contracts import VideoResults
from model.labels import ClassTable
from pipeline.foreign_files import whole_json
from pipeline.metrics.bootstrap import numbers_of
from pipeline.metrics.scorecard import Scorecard, headline, lower_is_better
from pipeline.predictions import kept_results

MODES = ("untrained", "near_online", "offline", "predictions")      # how the names of folders begin, in reading order
CLASS_SCORES = {"vpq": ("vpq", "vpq"), "ap": ("ap", "ap"), "miou": ("miou", "iou")}     # number -> table, its column


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One way, such as near-online with learned links, and its scores."""

    folder: Path
    summary: Mapping[str, Any]                                      # scores.json
    classes: Mapping[str, Any] = field(default_factory=dict)        # classes.json
    videos: Mapping[str, Any] = field(default_factory=dict)         # videos.json; {}: of an earlier version

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def title(self) -> str:
        """The name for people: 'near-online, links'."""
        mode = next((mode for mode in MODES if self.name.startswith(mode)), self.name)
        rest = self.name.removeprefix(mode).strip("_").replace("_", " ")
        return mode.replace("_", "-") + (f", {rest}" if rest else "")

    @property
    def is_result(self) -> bool:
        """Whether it is a result of the trained system, and no reference."""
        return not self.name.startswith("untrained") and not self.summary.get("uses_labels")

    @property
    def numbers(self) -> dict[str, float | None]:
        """All scores by name; VPQ of a window is `vpq_k12`."""
        return numbers_of(self.summary)

    @cached_property
    def cards(self) -> dict[str, Scorecard]:
        """Video -> its counts, of the videos with labels."""
        return {video: Scorecard.from_json(entry["scores"]) for video, entry in self.videos.items() if entry["scores"]}

    @cached_property
    def per_video(self) -> dict[str, dict[str, float | None]]:
        """Video -> all scores of it alone."""
        return {video: numbers_of(headline(card.scores())) for video, card in self.cards.items()}

    @property
    def track_threshold(self) -> float:
        """The score from which tracks count for identities, chosen over all videos as the metric does."""
        return Scorecard.sum_of(self.cards.values()).scores()["track_identity"].threshold

    def class_scores(self, number: str) -> dict[str, dict[str, Any]]:
        """Class -> its row in the table of a number, with its score as `score`."""
        table, column = CLASS_SCORES[number]
        return {row["class"]: {**row, "score": row[column]} for row in self.classes.get(table, ())}

    def results(self, video: str, classes: ClassTable) -> VideoResults | None:
        """The kept predictions of a video; None where they were not kept, or are gone."""
        if not self.summary.get("predictions"):
            return None
        stored = Path(self.summary["predictions"])
        own = self.folder / "predictions" / stored.name         # the run may have moved
        try:
            return kept_results(own if own.is_dir() else stored, video, classes)
        except (OSError, ValueError) as error:
            say(f"{self.title}: no pictures of {video!r}: {error}")
            return None


def read_evaluations(folder: Path) -> list[Evaluation]:
    """Every finished evaluation in the folder of scores, references first. One that is cut off is left out."""
    evaluations = []
    for path in sorted(folder.glob("*/scores.json")):
        summary = whole_json(path)
        if summary is None:
            say(f"{path} is cut off or damaged; the report leaves it out. Evaluate it again")
            continue
        evaluations.append(Evaluation(folder=path.parent, summary=summary,
                                      classes=whole_json(path.parent / "classes.json") or {},
                                      videos=whole_json(path.parent / "videos.json") or {}))
    return sorted(evaluations, key=lambda evaluation: (evaluation.is_result, _place(evaluation.name), evaluation.name))


def _place(name: str) -> int:
    return next((place for place, mode in enumerate(MODES) if name.startswith(mode)), len(MODES))


def best_of(evaluations: Sequence[Evaluation], number: str) -> Evaluation | None:
    """The result with the best value of a number; None without any."""
    results = [evaluation for evaluation in evaluations
               if evaluation.is_result and evaluation.numbers.get(number) is not None]
    sign = -1 if lower_is_better(number) else 1
    return max(results, key=lambda evaluation: sign * evaluation.numbers[number], default=None)


def reference_of(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The result with which the others are compared: the first, which is plain near-online where that was scored."""
    return next((evaluation for evaluation in evaluations if evaluation.is_result), None)
