"""Every official fact beside our value, and the deviation that states the difference where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import isclose
from typing import Any

from jobs.recipes import RECIPES, find_recipe
from jobs.recipes.schema import Recipe
from tests.jobs.recipes.official.deviations import DEVIATIONS, Deviation
from tests.jobs.recipes.official.facts import Fact
from tests.jobs.recipes.official.families import TABLES, VARIANTS
from tests.jobs.recipes.official.parameters import ParameterRule
from tests.jobs.recipes.official.readers import parameter_kinds, rates, read
from tests.jobs.recipes.official.schedules import Drops, Poly


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One field of one recipe."""

    recipe: str
    field: str
    official: Any
    ours: Any
    source: str
    decision: str

    @property
    def equal(self) -> bool:
        return alike(self.official, self.ours)

    @property
    def stated(self) -> list[Deviation]:
        """The deviations that speak about this field of this recipe; there should be one or none."""
        return [deviation for deviation in DEVIATIONS if deviation.covers(self.recipe, self.field)]


@cache
def published() -> list[str]:
    """The recipes that carry an official run: all that do not draw their own videos."""
    return [name for name in RECIPES if find_recipe(name).world is None]


@cache
def facts_of(name: str) -> list[Fact]:
    """The official facts about a recipe. A variant has those of its base, except for the fields it changes."""
    if name in VARIANTS:
        variant = VARIANTS[name]
        kept = [fact for fact in facts_of(variant.base)
                if not any(f"{fact.field}.".startswith(f"{field}.") for field in variant.changes)]
        return kept + [Fact(field=field, value=value, source=variant.source)
                       for field, value in variant.changes.items()]
    return [fact for table in TABLES if table.covers(name) for fact in table.facts]


@cache
def comparisons(name: str) -> tuple[Comparison, ...]:
    """All comparisons of one recipe."""
    return compare_recipe(find_recipe(name))


def compare_recipe(recipe: Recipe) -> tuple[Comparison, ...]:
    """All comparisons of a recipe, or of a changed one of the same name."""
    return tuple(comparison for fact in facts_of(recipe.name) for comparison in _compare(recipe, fact))


def _compare(recipe: Recipe, fact: Fact) -> Iterator[Comparison]:
    stage = fact.field.partition(".")[0]
    about = {"recipe": recipe.name, "source": fact.source, "decision": fact.decision}
    if isinstance(fact.value, ParameterRule):
        for kind, official, ours in parameter_kinds(recipe, stage, fact.value):
            yield Comparison(field=f"{fact.field}: {kind}", official=official,
                             ours=ours.pop() if len(ours) == 1 else sorted(ours, key=str), **about)
    elif isinstance(fact.value, Poly | Drops):
        steps = {step: fact.value.rate(step) for step in fact.value.chosen_steps()}
        yield Comparison(field=fact.field, official=steps, ours=rates(recipe, stage, fact.value), **about)
    else:
        yield Comparison(field=fact.field, official=fact.value, ours=read(recipe, fact.field), **about)


def alike(official: Any, ours: Any) -> bool:
    """Equal values; numbers up to rounding."""
    if isinstance(official, dict) and isinstance(ours, dict):
        return official.keys() == ours.keys() and all(alike(value, ours[key]) for key, value in official.items())
    if isinstance(official, tuple | list) and isinstance(ours, tuple | list):
        return len(official) == len(ours) and all(map(alike, official, ours))
    if isinstance(official, bool) or isinstance(ours, bool):
        return official is ours
    if isinstance(official, int | float) and isinstance(ours, int | float):
        return isclose(official, ours, rel_tol=1e-9)
    return official == ours
