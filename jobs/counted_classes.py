"""`count_classes`: the classes of the networks are those of the shards, so that a recipe need not say their number."""

from __future__ import annotations

from jobs.config import override
from jobs.recipes.schema import Recipe
from model.labels import ClassTable
from pipeline.shards import ShardSet


def with_counted_classes(recipe: Recipe) -> Recipe:
    """The recipe with the classes of the shards of its train split, where it counts them and they are made."""
    if not recipe.count_classes:
        return recipe
    try:
        classes = ShardSet(recipe.shards_of(recipe.train_split), tars_here=False).classes
    except FileNotFoundError:       # a verb that needs shards says so itself
        return recipe
    return for_classes(recipe, classes)


def for_classes(recipe: Recipe, classes: ClassTable) -> Recipe:
    """The recipe for these classes: their number in segmenter and heads, and their stuff where queries are reserved."""
    settings = [f"{setting}={len(classes)}" for setting in number_settings(recipe)]
    one = recipe.stage_one
    stuff = [index for index, is_thing in enumerate(classes.is_thing) if not is_thing]
    for name in ("segmenter", "losses", "linking"):
        if getattr(getattr(one, name), "stuff_classes", ()):
            settings.append(f"stage_one.{name}.stuff_classes={stuff}")
    return override(recipe, settings)


def number_settings(recipe: Recipe) -> list[str]:
    """The settings of a recipe that hold the number of classes."""
    parts = {"stage_two": recipe.stage_two, "stage_one.joint": recipe.stage_one.joint}
    return ["stage_one.segmenter.num_classes",
            *(f"{name}.head.num_classes" for name, part in parts.items() if part is not None and part.head is not None)]
