"""The tables of docs/reproduce.md, written from `jobs/reproducing/papers.toml`; the prose above them stays as it is.

    python -m tests.jobs.reproducing
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.reproducing.costs import TITLES, commands_of, row_cost, synthetic_cost
from jobs.reproducing.tables import Row, Table, tables

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = DOCS / "reproduce.md"
VERDICTS = DOCS / "verdicts"        # what runs of tables wrote, one file for each table and scale
BEGIN = "<!-- The tables are generated: python -m tests.jobs.reproducing -->\n"
END = "<!-- End of the tables -->\n"


def page() -> str:
    """The whole page: its prose, with the tables anew."""
    before, rest = PAGE.read_text().split(BEGIN)
    lines = [line for table in tables().values() for line in section(table)]
    return "\n".join([before + BEGIN.rstrip(), *lines, END.rstrip()]) + rest.split(END.rstrip())[1]


def section(table: Table) -> Iterator[str]:
    """The lines of one table."""
    yield from ("", f"### {table.title} (`{table.id}`)", "")
    if table.note:
        yield from (table.note, "")
    cells = [*(TITLES[metric] for metric in table.metrics), "commands", "cost at official scale"]
    yield f"| row | recipe | {' | '.join(cells)} |"
    yield f"|{'---|' * (len(cells) + 2)}"
    yield from (line(table, row) for row in table.rows)
    if table.synthetic is not None:
        yield from ("", f"Synthetic scale: {synthetic_cost(table.synthetic)}. {table.synthetic.why}")
    verdict = VERDICTS / f"{table.id}.synthetic.md"
    if verdict.is_file():
        yield from ("", verdict.read_text().rstrip())


def line(table: Table, row: Row) -> str:
    """One row of the page."""
    name = f"**{row.name}**" if row.name == table.reference else row.name
    settings = "".join(f", `{setting}`" for setting in row.set)
    numbers = [str(row.published[metric]) if metric in row.published
               else f"{row.difference[metric]:+g}" if metric in row.difference else "" for metric in table.metrics]
    runs = not table.missing(row, "official")
    commands = commands_of(table.recipe_of(row, "official")) if runs and row.is_trained else ""
    commands = "profile" if row.profile else "longest_video" if row.longest else commands
    cells = [name, f"`{row.recipe}`{settings}" if row.recipe else "", *numbers, commands, row_cost(table, row)]
    return f"| {' | '.join(cells)} |"
