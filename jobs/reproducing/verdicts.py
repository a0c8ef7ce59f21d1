"""Whether the signs of a table hold: what the paper says a row gains over the reference row, and what it gains here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.reproducing.tables import Row, Scale, Table
from jobs.sweeping.ranking import Row as Score
from jobs.sweeping.ranking import TrialResult, ranked

HELD = "held"
NOT_HELD = "not held"
UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One number of one row. NaN: not there."""

    row: str
    metric: str
    published: float = math.nan
    seeds: int = 0
    ours: float = math.nan                          # mean over seeds
    interval: tuple[float, float] = (math.nan, math.nan)
    reference: str                                  # the row with which it is compared; its own name for a reference
    published_difference: float = math.nan
    difference: tuple[float, float, float] = (math.nan, math.nan, math.nan)       # mean, and its interval
    sign: str                                       # held, not held, undecided, or why there is none


def verdicts(table: Table, results: Sequence[TrialResult], scale: Scale) -> list[Verdict]:
    """One verdict for the first metric of every row, and for every other number that the paper has of it."""
    return [verdict(table, row, metric, results, scale) for row in table.rows for metric in table.metrics
            if metric in row.published or metric in row.difference or metric == table.metrics[0]]


def verdict(table: Table, row: Row, metric: str, results: Sequence[TrialResult], scale: Scale) -> Verdict:
    """The verdict on one number of one row."""
    reference = table.reference_of(row)
    published = table.published_difference(row, metric)
    rows = _rows(results, metric, row.name, reference)
    line = rows.get(row.name)
    known = line is not None and line.seeds > 0
    compared = known and row.name != reference and reference in rows and rows[reference].seeds > 0
    difference = line.difference if compared else (math.nan,) * 3
    reason = table.missing(row, scale) or ("" if known else _why_unscored(row, results))
    return Verdict(row=row.name, metric=metric, published=row.published.get(metric, math.nan), reference=reference,
                   seeds=line.seeds if known else 0, ours=line.score if known else math.nan,
                   interval=line.interval if known else (math.nan, math.nan),
                   published_difference=math.nan if published is None else published, difference=difference,
                   sign=reason or _sign(row.name == reference, published, difference))


def _rows(results: Sequence[TrialResult], metric: str, name: str, reference: str) -> dict[str, Score]:
    """The scores of a row and of its reference, by name, compared with the reference if that has a result."""
    pair = [result for result in results if result.settings[0] in (name, reference)
            and (result.error or metric in result.draws)]
    is_there = any(result.settings == (reference,) for result in pair)
    lines = ranked(pair, metric, reference=(reference,) if is_there else None)
    return {line.settings[0]: line for line in lines}


def _why_unscored(row: Row, results: Sequence[TrialResult]) -> str:
    errors = [result.error for result in results if result.settings == (row.name,) and result.error]
    return f"failed: {errors[0]}" if errors else "not scored: the split has no labels for this number"


def _sign(is_reference: bool, published: float | None, difference: tuple[float, float, float]) -> str:
    if is_reference:
        return "reference"
    if published is None:
        return "no difference is published"
    if published == 0:
        return "equal in the paper"
    if math.isnan(difference[0]):
        return "the reference row has no score"
    _, low, high = difference
    if not (low > 0 or high < 0):
        return UNDECIDED
    return HELD if (low > 0) == (published > 0) else NOT_HELD
