"""Recipes in files: a TOML file that names a base recipe and the settings in which it differs, kept beside the data.

    base = "tiny_vis"                   # a recipe by name
    name = "birds"                      # of the run; without it, the name of the file

    [dataset]
    name = "labelme"
    root = "."                          # relative to this file, like every path in it

    [stage_one.fit]
    steps = 2000

Settings have the paths and the values of `--set`; TOML has no null, so it is written "null". A file that describes a
data set and gives no number of classes takes the classes of the shards (`count_classes`).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from pipeline.errors import BadInput
from pipeline.file_names import at_home
from pipeline.foreign_files import parse_json, read_text

SUFFIX = ".toml"


@dataclass(frozen=True)
class RecipeFile:
    """The content of a recipe file."""

    path: Path                      # absolute
    base: Recipe
    settings: tuple[str, ...]       # path=value, as `--set` takes them

    def sets(self, setting: str) -> bool:
        """Whether the file gives this setting, perhaps within a table that is one value."""
        given = {assignment.partition("=")[0] for assignment in self.settings}
        return any(f"{setting}.".startswith(f"{name}.") for name in given)


def is_recipe_file(recipe: str) -> bool:
    """Whether the word after `--recipe` is a file, and not the name of a recipe."""
    return recipe.lower().endswith(SUFFIX)


def read_recipe_file(recipe: str) -> RecipeFile:
    """Read a recipe file. Raises FileNotFoundError, and ValueError naming the file for anything that is no recipe."""
    path = at_home(recipe).absolute()
    if ".." in path.parts:      # the same settings from whatever folder a verb starts
        path = path.parent.resolve() / path.name
    try:
        content = tomllib.loads(read_text(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"--recipe {recipe}: there is no such file; write it as docs/own_data.md shows, or "
                                "give the name of a recipe") from None
    except OSError as error:
        raise ValueError(f"--recipe {recipe}: it cannot be read ({error.strerror})") from None
    except BadInput:                # a pipe or a device
        raise
    except ValueError as error:     # also bytes that are no text
        raise ValueError(f"--recipe {recipe}: it is not valid TOML ({error}); texts need quotes, and a table of "
                         "settings begins with a line such as [dataset]") from None
    except RecursionError:
        raise ValueError(f"--recipe {recipe}: it is nested too deeply to be a recipe") from None
    base = content.pop("base", None)
    if not isinstance(base, str) or is_recipe_file(base):
        raise ValueError(f"--recipe {recipe}: it needs a line such as base = \"tiny_vis\" with the name of a recipe, "
                         f"not {base!r}, before its first table")
    try:
        recipe_of_base = find_recipe(base)
    except ValueError as error:
        raise ValueError(f"--recipe {recipe}: {error}") from None
    content = {"name": path.stem, **content, "file": str(path)}
    settings = tuple(_assignments(content, recipe_of_base))
    describes_data = any(setting.startswith("dataset.") for setting in settings)
    if describes_data and not any(map(_is_about_classes, settings)):
        settings += ("count_classes=true",)
    return RecipeFile(path, recipe_of_base, settings)


def with_data_of_its_own(settings: Iterable[str]) -> list[str]:
    """The settings, and `world=null` where they say where the data lie and nothing about a synthetic world."""
    settings = list(settings)
    has_data = any(setting.startswith("dataset.root=") for setting in settings)
    has_world = any(setting.startswith(("world=", "world.")) for setting in settings)
    return [*settings, "world=null"] if has_data and not has_world else settings


def _assignments(values: Mapping[str, Any], config: Any, path: str = "") -> Iterator[str]:
    """`path=value` for every setting. A table in place of a part that the base lacks is one value."""
    for name, value in values.items():
        part = getattr(config, name, None)
        if isinstance(value, dict) and is_dataclass(part):
            yield from _assignments(value, part, f"{path}{name}.")
        else:
            yield f"{path}{name}={value if _is_word(value) else json.dumps(value, default=str)}"


def _is_word(value: Any) -> bool:
    """Whether a value is a text that `--set` takes as it is: one that begins with a bracket must be JSON."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return isinstance(value, str)
    try:
        parse_json(value)
    except ValueError:
        return False
    return True


def _is_about_classes(setting: str) -> bool:
    name = setting.partition("=")[0]
    return name.endswith("num_classes") or name == "count_classes"
