"""The SQLite store of MLflow beside the run folders: made once, whole, and moved together with its artifacts."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

DATABASE = "tracking.db"
ARTIFACTS = "artifacts"

# Columns that hold the address of an artifact or of a folder of them.
ADDRESSES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
             ("model_versions", "source"), ("model_versions", "storage_location"))


def prepare_store(folder: Path, create: Callable[[str], None]) -> str:
    """The uri of the store in a folder, which is made if there is none; its artifacts are in `folder/artifacts`.

    create: fills an empty database, given its uri. Several processes may call this at once. A folder that was moved or
    copied brings its artifacts along: addresses below the old place are changed to the new one.
    """
    database = folder / DATABASE
    with _alone(folder):
        if not database.is_file():
            partial = folder / f".{DATABASE}.{os.getpid()}.partial"
            partial.unlink(missing_ok=True)
            create(f"sqlite:///{partial}")
            partial.rename(database)
        _follow(database)
    return f"sqlite:///{database}"


def can_hold_store(folder: Path) -> bool:
    """Whether a store is in a folder that this process may write, or could be made there."""
    database = folder / DATABASE
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    return os.access(nearest, os.W_OK) and (not database.exists() or os.access(database, os.W_OK))


def _follow(database: Path) -> None:
    """Change the addresses of artifacts where the folder is no longer the one in which they were written."""
    here = (database.parent / ARTIFACTS).as_uri()
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
        others = {old for (old,) in rows if old.startswith("file:") and old.endswith(f"/{ARTIFACTS}") and old != here}
        with connection:
            for old in others:
                for table, column in ADDRESSES:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (here, len(old) + 1, old, len(old) + 1, f"{old}/"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{DATABASE}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
