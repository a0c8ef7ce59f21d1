"""Folders in which others add and remove files meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def paths_below(folder: Path) -> Iterator[Path]:
    """Yield all files and folders below a folder. One that is removed meanwhile is passed over with all in it.

    `Path.rglob` raises FileNotFoundError there.
    """
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in [*folders, *files])
