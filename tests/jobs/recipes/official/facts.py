"""Official facts as data: what a released configuration sets, and the public file and line that say so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

# The short names in a source: repository and commit.
REPOSITORIES = {
    "MXV": "TACJu/MaXTron 969dc5c, MaXTron_Video-kMaX",
    "MXT": "TACJu/MaXTron 969dc5c, MaXTron_Tube-Link",
    "KD": "bytedance/kmax-deeplab f8e1d04",
    "VK": "dlsrbgg33/video_kmax 465a07c",
    "TL": "lxtGH/Tube-Link 524ecd7",
    "VI": "sukjunhwang/VITA 59c24ad",
    "M2F": "facebookresearch/Mask2Former 9b0651c",
    "D2": "facebookresearch/detectron2 405ef0d",
    "mmcv": "open-mmlab/mmcv 0627873",
    "mmdet": "open-mmlab/mmdetection 2.x",
    "torch": "the defaults of PyTorch",
    "arXiv": "a paper, by its number",
}
_SOURCE = re.compile(rf"(?:{'|'.join(REPOSITORIES)}) \S.*")


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One value of an official run. `field` is a path into our recipe, or the name of a reader in `readers.py`."""

    field: str
    value: Any
    source: str             # "MXV train_net.py:83", several of them with "; " between
    decision: str = ""      # "D3": the difference of the comparison on which this fact decides

    def __post_init__(self) -> None:
        for part in self.source.split("; "):
            if not _SOURCE.fullmatch(part):
                raise ValueError(f"the official value of {self.field} has the source {part!r}; start it with one of "
                                 f"{', '.join(REPOSITORIES)}, and name file and line")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The facts that some recipes share. A recipe may stand in several tables, but a field only in one of them."""

    recipes: tuple[str, ...]        # names, * stands for any text; those that start with ! are left out again
    facts: tuple[Fact, ...]

    def covers(self, recipe: str) -> bool:
        """Whether the facts are about this recipe."""
        return matches(recipe, self.recipes)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name fits some pattern, and none of those that start with an exclamation mark."""
    refused = any(fnmatchcase(name, pattern[1:]) for pattern in patterns if pattern.startswith("!"))
    return not refused and any(fnmatchcase(name, pattern) for pattern in patterns)


def rows(path: str, values: dict[str, Any], source: str, decision: str = "") -> list[tuple]:
    """Rows of several fields below one path, with one source."""
    return [(f"{path}.{name}", value, source, decision) for name, value in values.items()]


def table(recipes: str, *rows: tuple) -> Table:
    """A table from rows (field, value, source) or (field, value, source, decision). recipes: patterns with spaces."""
    return Table(recipes=tuple(recipes.split()),
                 facts=tuple(Fact(**dict(zip(("field", "value", "source", "decision"), row))) for row in rows))
