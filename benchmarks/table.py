"""Writes benchmarks/README.md from the newest row of every result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from benchmarks.rows import RATIO, Row, digest, latest

PAGE = Path(__file__).parent / "README.md"

HEAD = """# Benchmarks

`python -m benchmarks --table` writes this page from `results/`. `python -m benchmarks` runs everything (about 17
minutes on a quiet machine), and `python -m benchmarks NAME` one of them. Ours and a baseline are timed in turns in the
same process. A ratio above 1 means that ours is faster; in brackets are the least and the greatest of the repeats.
Memory is our peak over that of the baseline, both above the level before the call. A row marked **(old)** was measured
before the last change of the code that it measures."""


def page(rows: Iterable[Row], modules: Mapping[str, ModuleType]) -> str:
    """The page. modules: of the benchmarks, by name, in the order of the page."""
    newest = latest(rows).values()
    parts = [HEAD]
    for name, module in modules.items():
        about = module.__doc__.strip().partition("\n\n")[0].replace("\n", " ")
        own = [row for row in newest if row.benchmark == name]
        notes = ["", module.NOTES] if hasattr(module, "NOTES") else []
        parts.append("\n".join([f"## {name}", "", about, *_table(own, digest(module.MEASURES)), *notes]))
    return "\n\n".join(parts) + "\n"


def _table(rows: list[Row], code: str) -> list[str]:
    if not rows:
        return ["", "No result is recorded."]
    cells = [[row.name, _value(row), _memory(row), _measured(row) + (" **(old)**" if row.code != code else "")]
             for row in rows]
    return ["", "| what | result | memory | measured |", "|---|---|---|---|",
            *(f"| {' | '.join(line)} |" for line in cells)]


def _value(row: Row) -> str:
    unit = row.unit if row.unit == RATIO else f" {row.unit}"
    spread = f" ({_number(row.low)} to {_number(row.high)})" if row.repeats > 1 and row.spread else ""
    return f"{_number(row.value)}{unit}{spread}"


def _number(value: float) -> str:
    """Two or three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2g}"


def _memory(row: Row) -> str:
    ours = row.detail.get("ours_megabytes")
    baseline = row.detail.get("baseline_megabytes")
    return f"{ours / baseline:.2f}" if ours is not None and baseline else ""


def _measured(row: Row) -> str:
    return f"{row.date[:10]}, {f'`{row.commit}`' if row.commit else 'commit unknown'}, {row.machine}"
