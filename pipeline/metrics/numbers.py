"""How scores are averaged and printed. NaN means that there was nothing to score: None in JSON, a dash in tables."""

from __future__ import annotations

from collections.abc import Iterable

NAN = float("nan")


def mean(values: Iterable[float]) -> float:
    """The plain mean; NaN without values."""
    values = list(values)
    return sum(values) / len(values) if values else NAN


def percent(value: float) -> float | None:
    """A fraction in percent, as papers print it; None for NaN."""
    return None if value != value else 100 * value


def cell(value: float | None) -> str:
    """A number as a table cell, eight characters wide."""
    return f"{'-':>8}" if value is None else f"{value:8.2f}"
