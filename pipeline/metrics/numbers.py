"""How scores are averaged and printed. NaN: nothing was to be scored; JSON says None, tables a dash."""

from __future__ import annotations

from collections.abc import Iterable

NAN = float("nan")


def mean(values: Iterable[float]) -> float:
    """The plain mean; NaN of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else NAN


def percent(value: float) -> float | None:
    """A fraction in percent, as papers print it; None for NaN."""
    return None if value != value else 100 * value


def cell(value: float | None) -> str:
    """Eight characters of a table."""
    return f"{'-':>8}" if value is None else f"{value:8.2f}"
