"""The results of a sweep on disk: one json for each trial, and the table of all trials as Parquet, text and plot."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.sweeping.ranking import Row, TrialResult, table
from pipeline.files import atomic_file, atomic_write, remove_folder
from pipeline.foreign_files import open_regular, whole_json
from pipeline.seals import sealed


class TrialRecords:
    """The trials of a sweep that are finished, by name. A json that is cut off counts as not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> TrialResult | None:
        """The result of a trial, None where it is not finished."""
        path = self.folder / f"{name}.json"
        saved = whole_json(path, needs={"settings": list, "numbers": dict}) if path.is_file() else None
        return None if saved is None else TrialResult.from_json(saved)

    def write(self, result: TrialResult) -> None:
        """Keep the result of a trial."""
        atomic_write(self.folder / f"{result.name}.json", json.dumps(sealed(asdict(result))).encode())

    def drop_models(self, *, keep: Sequence[str]) -> None:
        """Delete the models of all trials but those to keep."""
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in keep:
                remove_folder(path)


def write_tables(folder: Path, rows: Sequence[Row], results: Sequence[TrialResult], number: str) -> None:
    """`ranking.txt`, `ranking.png` and `trials.parquet`, which has one row for each trial."""
    atomic_write(folder / "ranking.txt", (table(rows, number) + "\n").encode())
    with atomic_file(folder / "trials.parquet") as file:
        pq.write_table(trial_table(results), file)
    atomic_write(folder / "ranking.png", plot(rows, number))


def trial_table(results: Sequence[TrialResult]) -> pa.Table:
    """One row for each trial: a column for each field, each swept setting and each score.

    Everything that `ranked` reads is in it, so the ranked table can be made again from this file alone, such as from
    the copy in MLflow (`read_trials`).
    """
    settings = list(dict.fromkeys(setting.partition("=")[0] for result in results for setting in result.settings))
    numbers = list(dict.fromkeys(number for result in results for number in result.numbers))
    values = [dict(setting.partition("=")[::2] for setting in result.settings) for result in results]
    columns = {"trial": [result.name for result in results], "seed": [result.seed for result in results],
               **{name: [row.get(name) for row in values] for name in settings},
               **{name: [result.numbers.get(name) for result in results] for name in numbers},
               **{name: [getattr(result, name) for result in results]
                  for name in ("steps", "seconds", "loss", "error")},
               "result": [json.dumps(asdict(result)) for result in results]}
    return pa.table(columns)


def read_trials(path: Path) -> list[TrialResult]:
    """The trials of a `trials.parquet`."""
    with open_regular(path) as file:
        return [TrialResult.from_json(json.loads(row)) for row in pq.read_table(file)["result"].to_pylist()]


def plot(rows: Sequence[Row], number: str) -> bytes:
    """The scores and intervals of the ranked settings as PNG."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.figure import Figure  # seconds to import, and needed once

    scored = [row for row in rows if row.seeds][:40]
    figure = Figure(figsize=(8, 1.2 + 0.28 * max(len(scored), 1)), layout="constrained")
    axes = figure.add_subplot()
    for position, row in enumerate(scored):
        axes.plot(row.interval, (position, position), color="0.6")
        axes.plot(row.score, position, "o", color="tab:blue")
    labels = [", ".join(setting.rpartition(".")[2] for setting in row.settings) for row in scored]
    axes.set_yticks(range(len(scored)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(f"{number}: mean over seeds, and 95 % interval over videos and seeds")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
