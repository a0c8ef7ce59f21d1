"""The verdicts of a table as text, markdown, CSV and a plot."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.reproducing.costs import TITLES
from jobs.reproducing.tables import Table
from jobs.reproducing.verdicts import HELD, NOT_HELD, UNDECIDED, Verdict
from pipeline.files import atomic_write
from pipeline.printable import printable

HEAD = ("row", "number", "published", "ours", "95 % interval", "published difference", "our difference",
        "95 % interval", "sign")
COLUMNS = ("row", "metric", "published", "seeds", "ours", "low", "high", "reference", "published_difference",
           "difference", "difference_low", "difference_high", "sign")

LONGEST = 80        # characters of the last cell, which may be an error


def write_report(folder: Path, table: Table, verdicts: Sequence[Verdict], how: str) -> dict[str, str]:
    """Write `table.md`, `table.csv` and `table.png`; returns their paths. how: one sentence on where they come from."""
    contents = {"table.md": markdown(table, verdicts, how).encode(), "table.csv": as_csv(verdicts).encode(),
                "table.png": plot(table, verdicts)}
    for name, content in contents.items():
        atomic_write(folder / name, content)
    return {name: str(folder / name) for name in contents}


def cells(verdict: Verdict) -> list[str]:
    """One line of the table."""
    difference, *span = verdict.difference
    sign = printable(verdict.sign)
    return [verdict.row, TITLES[verdict.metric], _number(verdict.published), _number(verdict.ours),
            _span(verdict.interval), _number(verdict.published_difference, "+g"), _number(difference, "+.2f"),
            _span(span), sign if len(sign) <= LONGEST else f"{sign[:LONGEST]}..."]


def text(verdicts: Sequence[Verdict]) -> str:
    """The table for a terminal."""
    lines = [list(HEAD), *map(cells, verdicts)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def markdown(table: Table, verdicts: Sequence[Verdict], how: str) -> str:
    """The table with a heading, and how it came about."""
    lines = [f"#### `{table.id}` as it was run", "", how, "", f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}",
             *(f"| {' | '.join(map(_cell, cells(verdict)))} |" for verdict in verdicts), "", counted(verdicts)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text that stays in its cell of a Markdown table: a row that failed quotes an error, with names from data."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def counted(verdicts: Sequence[Verdict]) -> str:
    """How many signs hold."""
    signs = [verdict.sign for verdict in verdicts]
    return f"Signs: {', '.join(f'{signs.count(sign)} {sign}' for sign in (HELD, NOT_HELD, UNDECIDED))}."


def as_csv(verdicts: Sequence[Verdict]) -> str:
    """One row for each verdict; what is not there is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_empty(value) for value in _values(verdict)] for verdict in verdicts)
    return file.getvalue()


def plot(table: Table, verdicts: Sequence[Verdict]) -> bytes:
    """The differences to the reference row in the table's first metric, published and ours with intervals, as PNG."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.figure import Figure  # seconds to import, and needed once

    metric = table.metrics[0]
    shown = [verdict for verdict in verdicts if verdict.metric == metric and verdict.row != verdict.reference]
    figure = Figure(figsize=(8, 1.4 + 0.28 * max(len(shown), 1)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color="0.8")
    for position, verdict in enumerate(shown):
        difference, low, high = verdict.difference
        axes.plot((low, high), (position, position), color="0.6")
        axes.plot(difference, position, "o", color="tab:blue", label="ours" if position == 0 else None)
        axes.plot(verdict.published_difference, position, "x", color="tab:red",
                  label="published" if position == 0 else None)
    axes.set_yticks(range(len(shown)), [verdict.row for verdict in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(f"{TITLES[metric]}: difference to the reference row, 95 % interval over videos and seeds")
    if shown:
        axes.legend(fontsize=7)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()


def _values(verdict: Verdict) -> Iterator[str | float]:
    yield from (verdict.row, verdict.metric, verdict.published, verdict.seeds, verdict.ours, *verdict.interval,
                verdict.reference, verdict.published_difference, *verdict.difference, verdict.sign)


def _empty(value: str | float) -> str | float:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _number(value: float, form: str = "") -> str:
    if math.isnan(value):
        return ""
    return format(value, form) if form else str(value) if value == round(value, 1) else f"{value:.2f}"


def _span(interval: Sequence[float]) -> str:
    return "" if math.isnan(interval[0]) else f"{interval[0]:.2f} to {interval[1]:.2f}"
