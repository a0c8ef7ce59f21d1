"""Scores along the training of the rows of a table, as curves: VITA's figure of its similarity loss."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.recipes.schema import Recipe
from jobs.reporting.curves import COLORS, read_scores
from jobs.reproducing.plan import RowRun
from pipeline.files import atomic_write

Points = tuple[tuple[float, float], ...]        # steps and scores of one training


def write_curves(folder: Path, runs: Sequence[RowRun]) -> dict[str, str]:
    """Write `curves.csv` and `curves.png`; returns their paths, nothing where no training was scored on the way."""
    curves = curves_of(runs)
    if not curves:
        return {}
    contents = {"curves.csv": as_csv(curves).encode(), "curves.png": plot(curves)}
    for name, content in contents.items():
        atomic_write(folder / name, content)
    return {name: str(folder / name) for name in contents}


def curves_of(runs: Sequence[RowRun]) -> dict[str, dict[int, Points]]:
    """Row -> seed -> the scores of the last stage that the row trains, where it was scored while it trained."""
    curves: dict[str, dict[int, Points]] = {}
    for run in runs:
        scores = read_scores(last_stage(run.recipe))
        if scores is not None:
            curves.setdefault(run.row.name, {})[run.seed] = scores.points
    return curves


def last_stage(recipe: Recipe) -> Path:
    """The folder of the last stage that a run trains."""
    if recipe.stage_two is None:
        return recipe.stage_one_run / "stage_one"
    return recipe.run_folder / "stage_two"


def as_csv(curves: Mapping[str, Mapping[int, Points]]) -> str:
    """One line for each score."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("row", "seed", "step", "score"))
    writer.writerows((row, seed, f"{step:g}", value) for row, seeds in curves.items()
                     for seed, points in seeds.items() for step, value in points)
    return file.getvalue()


def plot(curves: Mapping[str, Mapping[int, Points]]) -> bytes:
    """The mean over seeds of each row as a line, and each seed as a thin one, as PNG."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.figure import Figure  # seconds to import, and needed once

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for place, (row, seeds) in enumerate(curves.items()):
        color = COLORS[place % len(COLORS)]
        for points in seeds.values():
            axes.plot(*zip(*points), color=color, alpha=0.3, linewidth=0.8)
        axes.plot(*zip(*mean_of(list(seeds.values()))), color=color, marker="o", markersize=3.5,
                  label=f"{row}, mean of {len(seeds)}")
    axes.set(xlabel="step", ylabel="score on held-out videos")
    axes.legend(fontsize=7)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()


def mean_of(seeds: Sequence[Points]) -> Points:
    """The mean score at each step that all seeds have."""
    by_step = [dict(points) for points in seeds]
    shared = sorted(set.intersection(*(set(scores) for scores in by_step)))
    return tuple((step, sum(scores[step] for scores in by_step) / len(by_step)) for step in shared)
