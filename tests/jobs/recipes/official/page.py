"""docs/recipes.md, written from the tables: what every recipe sets beside the official run.

    python -m tests.jobs.recipes.official
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.jobs.recipes.official.compare import comparisons, published
from tests.jobs.recipes.official.coverage import NO_OFFICIAL_VALUE
from tests.jobs.recipes.official.decisions import DECISIONS
from tests.jobs.recipes.official.deviations import DEVIATIONS
from tests.jobs.recipes.official.facts import REPOSITORIES, Fact, Table
from tests.jobs.recipes.official.families import FAMILIES, OURS_ALONE, VARIANTS, WITHOUT_A_FILE
from tests.jobs.recipes.official.parameters import ParameterRule

PAGE = Path(__file__).resolve().parents[4] / "docs" / "recipes.md"

INTRODUCTION = """# The recipes beside the official runs

This page is generated: `python -m tests.jobs.recipes.official` writes it from the tables in
`tests/jobs/recipes/official/`. A test fails when a recipe differs from its table without a stated reason, when a stated
difference is no longer there, when a setting of the schema stands in no table, and when this page is out of date.

A field is the path of a setting (`--set` takes it), or a name in words for what several settings decide together.
`rates` is the learning rate at the start, in the middle and at the end of the warm-up, around every drop, and at the
last step. `parameters` gives the factor on it and the weight decay of every parameter, as the optimiser gets them. In
the names of recipes, * stands for any text, and those after `!` are left out. The sources are short for:
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, *(f"- {short}: {repository}" for short, repository in REPOSITORIES.items()), "",
             *_decisions(), *_exceptions()]
    for title, family in FAMILIES.items():
        parts += _family(title, family.TABLES)
    return "\n".join([*parts, *_variants()]) + "\n"


def _decisions() -> list[str]:
    """One row for each difference of the comparison, with what became of it."""
    numbered = defaultdict(list)
    for name in published():
        for comparison in comparisons(name):
            if comparison.decision:
                numbered[comparison.decision].append(comparison)
    lines = ["## The 25 differences", "",
             "A comparison field by field found these differences. The tables below decide each.",
             "", "| | official | ours |", "|---|---|---|"]
    for number, title in DECISIONS.items():
        reasons = dict.fromkeys(deviation.reason for deviation in DEVIATIONS if deviation.decision == number)
        checked = len({comparison.field for comparison in numbered[number]})
        equal = len({comparison.field for comparison in numbered[number] if comparison.equal})
        rest = [f"as official ({equal} of {checked} fields)"] if equal else []
        became = "; ".join([*reasons, *rest])
        lines.append(f"| {number} | {title} | {became} |")
    return [*lines, ""]


def _exceptions() -> list[str]:
    lines = ["## Recipes without a released file of their own", "", "| recipe | why |", "|---|---|"]
    lines += [f"| {_patterns(patterns.split())} | {reason} |" for patterns, reason in WITHOUT_A_FILE.items()]
    lines += [f"| {_patterns(patterns.split())} | ours alone: {reason} |" for patterns, reason in OURS_ALONE.items()]
    lines += ["", "## Settings without an official value", "", "| settings | why |", "|---|---|"]
    lines += [f"| {', '.join(f'`{pattern}`' for pattern in patterns)} | {reason} |"
              for reason, patterns in NO_OFFICIAL_VALUE.items()]
    return [*lines, ""]


def _family(title: str, tables: Sequence[Table]) -> list[str]:
    """The differences of a family first, then the official values of every table."""
    names = [name for name in published() if any(table.covers(name) for table in tables)]
    lines = [f"## {title}", "", *_differences(names)]
    for recipes, group in groupby(tables, key=lambda table: table.recipes):
        lines += [f"### {_patterns(recipes)}", "",
                  "| field | official | ours | source |", "|---|---|---|---|"]
        lines += [row for table in group for fact in table.facts for row in _rows(table, fact)]
        lines.append("")
    return lines


def _differences(names: list[str]) -> list[str]:
    """What differs in the recipes of a family, and why."""
    lines = []
    for deviation in DEVIATIONS:
        stated = [comparison for name in names for comparison in comparisons(name)
                  if deviation.covers(name, comparison.field)]
        officials: dict[str, dict[str, None]] = defaultdict(dict)
        for comparison in stated:
            officials[comparison.field][show(comparison.official)] = None
        lines += [f"| `{field}` | {_patterns(deviation.recipes)} | {' or '.join(values)} | {show(deviation.ours)} | "
                  f"{deviation.reason} |" for field, values in officials.items()]
    if not lines:
        return ["Nothing differs.", ""]
    return ["| differs | recipes | official | ours | why |", "|---|---|---|---|---|", *lines, ""]


def _rows(table: Table, fact: Fact) -> list[str]:
    """A row for a fact; a rule of parameters has one for each kind of them."""
    is_rule = isinstance(fact.value, ParameterRule)
    officials = {} if is_rule else {fact.field: show(fact.value)}
    ours: dict[str, dict[str, None]] = defaultdict(dict)
    for name in (name for name in published() if table.covers(name)):
        for comparison in comparisons(name):
            if comparison.field == fact.field or (is_rule and comparison.field.startswith(f"{fact.field}: ")):
                officials.setdefault(comparison.field, show(comparison.official))
                ours[comparison.field]["=" if comparison.equal else show(comparison.ours)] = None
    return [f"| `{field}` | {official} | {' or '.join(ours[field])} | {fact.source} |"
            for field, official in sorted(officials.items())]


def _variants() -> list[str]:
    lines = ["## Rows that change another one", "", "| recipe | as | but | source |", "|---|---|---|---|"]
    for name, variant in VARIANTS.items():
        changes = ", ".join(f"`{field}` {show(value)}" for field, value in variant.changes.items())
        lines.append(f"| `{name}` | `{variant.base}` | {changes} | {variant.source} |")
    return lines


def show(value: Any) -> str:
    """A value as the page prints it."""
    if isinstance(value, dict):
        return ", ".join(f"step {step:,}: {rate:g}" for step, rate in value.items())
    if isinstance(value, tuple | list):
        return " x ".join(map(show, value)) if _is_size(value) else f"({', '.join(map(show, value))})"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _is_size(value: Any) -> bool:
    return len(value) == 2 and all(isinstance(side, int) and side > 100 for side in value)


def _patterns(patterns: Iterable[str]) -> str:
    return " ".join(f"`{pattern}`" for pattern in patterns)
