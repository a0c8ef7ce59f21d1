"""Classes, void and panoptic ids, defined once for the whole project.

A *class* is always its position in a `ClassTable` (0 ... classes-1); the number a data set uses for it is `dataset_id`.
The class logits have one row more than the table: the last one means *no object*.
A *panoptic id* is `class * DIVISOR + track`: track 0 for stuff, 1 and up for things. A pixel without label is `VOID`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

VOID = -1             # panoptic id, and tube index, of a pixel without label
FIRST_OVERLAP = -2    # tube index of a pixel that several tubes share: FIRST_OVERLAP - position in a list of overlaps
DIVISOR = 10_000      # tracks of one class in one video; int32 then holds 200,000 classes
NUMBERED = "numbered"   # name of a class table without names


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class: its number and name in the data set, whether it is countable, its colour (r, g, b in 0-255)."""

    dataset_id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int]


def _in_words(info: ClassInfo | None, other: ClassInfo | None) -> str:
    """The name of a class; all of it where another class has the name too."""
    if info is None:
        return "missing"
    if other is None or info.name != other.name:
        return repr(info.name)
    return f"{info.name!r} (id {info.dataset_id}, {'thing' if info.is_thing else 'stuff'}, color {list(info.color)})"


@dataclass(frozen=True)
class ClassTable:
    """All classes of a data set in the order of the class logits."""

    name: str
    classes: tuple[ClassInfo, ...]

    def __post_init__(self) -> None:
        ids = [info.dataset_id for info in self.classes]
        if not ids:
            raise ValueError(f"class table {self.name!r} is empty; a data set needs at least one class")
        if len(set(ids)) != len(ids):
            twice = sorted({i for i in ids if ids.count(i) > 1})
            raise ValueError(f"class table {self.name!r} lists the ids {twice} twice; each class needs its own id")

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def has_names(self) -> bool:
        """Whether it says what the classes are; a table made by `numbered` does not."""
        return self.name != NUMBERED

    @classmethod
    def numbered(cls, classes: int) -> ClassTable:
        """A table for a network whose data set is unknown: no names, and all things."""
        return cls(NUMBERED, tuple(ClassInfo(number, f"class {number}", True, (128, 128, 128))
                                   for number in range(classes)))

    @cached_property
    def index_of(self) -> dict[int, int]:
        """Data set's id of a class -> its position here."""
        return {info.dataset_id: index for index, info in enumerate(self.classes)}

    @cached_property
    def is_thing(self) -> np.ndarray:
        """bool, one entry per class."""
        return np.array([info.is_thing for info in self.classes], dtype=bool)

    def difference_from(self, other: ClassTable) -> str:
        """The first class in which two tables differ, in words; "" for equal tables."""
        for index in range(max(len(self), len(other))):
            here, there = (table.classes[index] if index < len(table) else None for table in (self, other))
            if here != there:
                return f"class {index} is {_in_words(here, there)} here and {_in_words(there, here)} there"
        return "" if self == other else f"the data set is {self.name!r} here and {other.name!r} there"

    def to_json(self) -> dict:
        """The table as plain values; `from_json` reads it back."""
        rows = [
            {"id": c.dataset_id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
            for c in self.classes
        ]
        return {"name": self.name, "classes": rows}

    @classmethod
    def from_json(cls, table: dict) -> ClassTable:
        """Read what `to_json` wrote."""
        rows = [ClassInfo(r["id"], r["name"], bool(r["isthing"]), tuple(r["color"])) for r in table["classes"]]
        return cls(table["name"], tuple(rows))


def panoptic_id(class_index, track):
    """Class and track -> panoptic id; works on numbers, arrays and tensors."""
    return class_index * DIVISOR + track


def class_of(panoptic):
    """Panoptic id -> class; `VOID` stays negative. Works on numbers, arrays and tensors."""
    return panoptic // DIVISOR


def track_of(panoptic):
    """Panoptic id -> track (0 for stuff); meaningless for `VOID`."""
    return panoptic % DIVISOR
