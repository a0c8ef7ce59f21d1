"""The tables of the report: headline scores, classes, videos and data, side by side for all ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.recipes.schema import Recipe
from jobs.reporting.evaluations import Evaluation, reference_of
from pipeline.metrics.scorecard import lower_is_better
from pipeline.shards import ShardSet

# Number -> its name for people, with its unit, in reading order.
NAMES = {"vpq": "VPQ (%)", "vpq_thing": "VPQ of things (%)", "vpq_stuff": "VPQ of stuff (%)", "stq": "STQ (%)",
         "aq": "AQ (%)", "sq": "SQ (%)", "ap": "AP (%)", "ap50": "AP50 (%)", "ap75": "AP75 (%)", "ar10": "AR10 (%)",
         "idf1": "IDF1 (%)", "switches": "identity switches", "track_idf1": "IDF1 of tracks (%)",
         "track_switches": "identity switches of tracks", "miou": "mIoU (%)", "mvc8": "mVC8 (%)", "mvc16": "mVC16 (%)"}
WINDOW = "vpq_k"        # with a window behind it
MOST_VIDEOS = 500       # rows of the table of videos


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A score, and what it is better or worse by than the reference of its row."""

    text: str
    difference: str = ""        # "+1.2"; empty: there is none
    verdict: str = ""           # "better" or "worse"
    bar: float = 0.0            # 0 to 100; width of a bar behind the text, in percent


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under the titles of their columns."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]      # name of the row, its cells
    note: str = ""


def cell(value: float | None, *, number: str, against: float | None = None, bar: bool = False) -> Cell:
    """A score as a cell. against: the score to compare with; None: nothing."""
    if value is None:
        return Cell(text="-")
    places = 0 if number.endswith("switches") else 1
    difference = None if against is None else round(value, places) - round(against, places)
    if not difference:
        return Cell(text=f"{value:.{places}f}", bar=value if bar else 0)
    verdict = "better" if (difference < 0) == lower_is_better(number) else "worse"
    return Cell(text=f"{value:.{places}f}", difference=f"{difference:+.{places}f}", verdict=verdict,
                bar=value if bar else 0)


def headline_table(evaluations: Sequence[Evaluation]) -> Table:
    """One row a number, one column a way; differences are to the first result."""
    reference = reference_of(evaluations)
    known = [number for number in (*NAMES, *_windows(evaluations))
             if any(evaluation.numbers.get(number) is not None for evaluation in evaluations)]
    rows = tuple((name_of_number(number), tuple(
        cell(evaluation.numbers.get(number), number=number, against=_against(evaluation, reference, number))
        for evaluation in evaluations)) for number in known)
    note = "" if reference is None else f"Differences are to {reference.title}."
    return Table(titles=tuple(evaluation.title for evaluation in evaluations), rows=rows, note=note)


def class_table(evaluations: Sequence[Evaluation], number: str) -> Table:
    """One row a class, one column a result, with bars."""
    results = [evaluation for evaluation in evaluations if evaluation.is_result]
    scores = [evaluation.class_scores(number) for evaluation in results]
    classes = dict.fromkeys(name for rows in scores for name in rows)
    rows = tuple((name, tuple(cell(column[name]["score"] if name in column else None, number=number, bar=True,
                                   against=None if column is scores[0] or name not in scores[0]
                                   else scores[0][name]["score"]) for column in scores)) for name in classes)
    note = f"{name_of_number(number)} of each class." + (f" Differences are to {results[0].title}." if results[1:]
                                                         else "")
    return Table(titles=tuple(evaluation.title for evaluation in results), rows=rows, note=note)


def video_table(evaluations: Sequence[Evaluation], number: str) -> Table:
    """One row a video, worst first by the reference, one column a result and its difference."""
    results = [evaluation for evaluation in evaluations if evaluation.is_result and evaluation.videos]
    if not results:
        return Table(titles=(), rows=())
    reference = results[0].per_video

    def score(evaluation: Evaluation, video: str) -> float | None:
        return evaluation.per_video.get(video, {}).get(number)

    videos = sorted(reference, key=lambda video: (score(results[0], video) is None, score(results[0], video) or 0))
    rows = tuple((video, tuple(cell(score(evaluation, video), number=number,
                                    against=_against_video(evaluation, results[0], video, number))
                               for evaluation in results)) for video in videos[:MOST_VIDEOS])
    left_out = f" The {len(videos) - MOST_VIDEOS} best videos are left out." if len(videos) > MOST_VIDEOS else ""
    return Table(titles=tuple(evaluation.title for evaluation in results), rows=rows,
                 note=f"{name_of_number(number)} of each video alone, worst first.{left_out}")


def data_tables(recipe: Recipe) -> list[tuple[str, Table]]:
    """For each split whose shards are there: videos, objects and share of labelled pixels of its classes."""
    tables = []
    for split in recipe.splits:
        try:
            shards = ShardSet(recipe.shards_of(split))
        except FileNotFoundError:
            continue
        tables.append((split, _class_counts(shards)))
    return tables


def _class_counts(shards: ShardSet) -> Table:
    counts: list[dict[str, Any]] = shards.manifest.get("classes") or []
    labelled = max(1, sum(row["pixels"] for row in counts))
    kinds = {info.dataset_id: "thing" if info.is_thing else "stuff" for info in shards.classes.classes}
    rows = tuple((row["name"], (Cell(text=kinds[row["id"]]), Cell(text=str(row["videos"])),
                                Cell(text=str(row["objects"])),
                                Cell(text=f"{100 * row['pixels'] / labelled:.2f}",
                                     bar=100 * row["pixels"] / labelled)))
                 for row in counts if row["videos"])
    absent = [row["name"] for row in counts if not row["videos"]]
    totals = shards.manifest["totals"]
    note = f"{totals['videos']} videos, {totals['frames']} frames." + (f" Never seen: {', '.join(absent)}."
                                                                      if absent else "")
    return Table(titles=("kind", "videos", "objects", "labelled pixels (%)"), rows=rows, note=note)


def name_of_number(number: str) -> str:
    """A number for people, with its unit."""
    if number.startswith(WINDOW):
        return f"VPQ at window {number.removeprefix(WINDOW)} (%)"
    return NAMES.get(number, number)


def _windows(evaluations: Sequence[Evaluation]) -> list[str]:
    return sorted({number for evaluation in evaluations for number in evaluation.numbers if number.startswith(WINDOW)},
                  key=lambda number: int(number.removeprefix(WINDOW)))


def _against(evaluation: Evaluation, reference: Evaluation | None, number: str) -> float | None:
    if reference is None or evaluation is reference or not evaluation.is_result:
        return None
    return reference.numbers.get(number)


def _against_video(evaluation: Evaluation, reference: Evaluation, video: str, number: str) -> float | None:
    return None if evaluation is reference else reference.per_video[video].get(number)
