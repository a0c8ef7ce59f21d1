"""The tables of the papers: rows with recipes, and their published numbers. `papers.toml` holds all of it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jobs.config import override
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe

Scale = Literal["official", "synthetic"]

PAPERS = Path(__file__).parent / "papers.toml"
NO_RECIPE = "no recipe yet"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A row that counts the cost of a network."""

    size: tuple[int, int]           # H W
    clip_frames: int

    @classmethod
    def from_toml(cls, values: Mapping[str, Any] | None) -> Profile | None:
        """None for a row that is trained and scored."""
        return None if values is None else cls(size=tuple(values["size"]), clip_frames=values["clip_frames"])


@dataclass(frozen=True, kw_only=True)
class Longest:
    """A row that searches for the longest video in a given memory."""

    gigabytes: float                # of 10^9 bytes
    size: tuple[int, int]           # of the network input, H W

    @classmethod
    def from_toml(cls, values: Mapping[str, Any] | None) -> Longest | None:
        """None for a row that does not search."""
        return None if values is None else cls(gigabytes=values["gigabytes"], size=tuple(values["size"]))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table: a recipe with settings, and its published numbers."""

    name: str
    recipe: str = ""                                # empty: this code has none
    set: tuple[str, ...] = ()                       # path=value at official scale
    synthetic: tuple[str, ...] = ()                 # the same at synthetic scale
    start: tuple[str, ...] = ()                     # path=value of the segmenter that it starts from there (Synthetic)
    published: Mapping[str, float] = field(default_factory=dict)
    difference: Mapping[str, float] = field(default_factory=dict)      # published to the reference row, without scores
    reference: str = ""                             # empty: that of the table
    missing: str = ""                               # what this code lacks for the row; empty: nothing
    profile: Profile | None = None
    longest: Longest | None = None

    @property
    def is_trained(self) -> bool:
        """Whether the row has a score; the others measure networks with random weights, and read no data."""
        return self.profile is None and self.longest is None


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """How the rows of a table are run on a synthetic world."""

    recipe: str
    set: tuple[str, ...] = ()       # path=value for all rows
    start: tuple[str, ...] = ()     # path=value on top, for the segmenter that rows start from; empty: none
    why: str                        # the field of the rows can matter on this world
    minutes: float | None = None    # of CPU time, with three seeds and one thread; None: not measured


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table or figure of a paper."""

    id: str
    title: str
    note: str = ""
    metrics: tuple[str, ...]        # names of numbers (`pipeline.metrics.bootstrap.numbers_of`), the first one leads
    reference: str                  # name of the row with which the others are compared
    rows: tuple[Row, ...]
    synthetic: Synthetic | None = None

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names) or not {self.reference_of(row) for row in self.rows} <= set(names):
            raise ValueError(f"{PAPERS}: two rows of {self.id} have the same name, or a reference names no row")

    def row(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    def reference_of(self, row: Row) -> str:
        """The name of the row with which a row is compared; its own name for a reference."""
        references = {other.reference for other in self.rows}
        return row.reference or (row.name if row.name in references else self.reference)

    def published_difference(self, row: Row, metric: str) -> float | None:
        """What the paper says a row gains over its reference; None where it does not."""
        if metric in row.difference:
            return row.difference[metric]
        reference = self.row(self.reference_of(row))
        if row is reference or metric not in row.published or metric not in reference.published:
            return None
        return round(row.published[metric] - reference.published[metric], 3)

    def missing(self, row: Row, scale: Scale) -> str:
        """Why a row cannot be run at a scale; empty where it can."""
        if scale == "official":
            return f"{NO_RECIPE}: {row.missing}" if row.missing else ""
        if self.synthetic is None:
            return "no synthetic version"
        is_reference = row.name == self.reference_of(row)
        return "" if row.synthetic or is_reference else f"{NO_RECIPE}: {row.missing or 'no synthetic settings'}"

    def recipe_of(self, row: Row, scale: Scale) -> Recipe:
        """The recipe of a row, without a seed. Raises ValueError for a row that cannot be run at this scale."""
        if reason := self.missing(row, scale):
            raise ValueError(f"{self.id}, {row.name}: {reason}")
        if scale == "official":
            return override(find_recipe(row.recipe), row.set)
        return override(override(find_recipe(self.synthetic.recipe), self.synthetic.set), row.synthetic)

    def start_of(self, row: Row, scale: Scale) -> Recipe | None:
        """The recipe of the segmenter that a row starts from; None where it starts as its own recipe says."""
        if scale == "official" or self.synthetic is None or not self.synthetic.start:
            return None
        start = override(override(find_recipe(self.synthetic.recipe), self.synthetic.set), self.synthetic.start)
        return override(start, row.start)


@cache
def tables() -> dict[str, Table]:
    """All tables by id, in the order of the file."""
    content = tomllib.loads(PAPERS.read_text(encoding="utf-8"))
    return {table["id"]: _table(table) for table in content["table"]}


def find_table(name: str) -> Table:
    """A table by its id. Raises ValueError that lists what there is, nearest names first."""
    if name not in tables():
        near = difflib.get_close_matches(name, tables(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"there is no table {name!r}; {hint}All tables: {', '.join(tables())}")
    return tables()[name]


def _table(values: Mapping[str, Any]) -> Table:
    synthetic = values.get("synthetic")
    return Table(**{**values, "metrics": tuple(values["metrics"]), "rows": tuple(map(_row, values["rows"])),
                    "synthetic": None if synthetic is None else Synthetic(**_tuples(synthetic))})


def _row(values: Mapping[str, Any]) -> Row:
    return Row(**{**_tuples(values), "profile": Profile.from_toml(values.get("profile")),
                  "longest": Longest.from_toml(values.get("longest"))})


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
