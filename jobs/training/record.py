"""The record of one verb: all that MLflow is to hold of it, as files beside the run until MLflow has it.

    <run folder>/tracking/<key>/run.json               the verb; written once
                                mlflow.json            its run in MLflow; written by whoever logs
                                attempts               a byte for each start of the verb
                                finished               the verb has ended without an error
                                <time>_<kind>.json     one entry; the names sort in the order of their writing
                                <time>_<kind>/         the files that belong to an entry

Entries are added and removed, never changed, so one process may log them while others add more. A process that is
killed leaves whole entries. Files are hard links where the file system allows it: they cost no space as long as the
original is there, and keep their content when a later verb replaces the original.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.files import atomic_write, remove_file, remove_folder
from pipeline.foreign_files import LARGEST_JSON, own_json, parse_json, read_file, whole_json
from pipeline.living_folders import paths_below

FOLDER = "tracking"             # inside the folder of a run
FACTS = {"verb": str, "run": str, "project": str, "uri": str, "began": int, "parent_key": str}    # of `run.json`
COUNTED = ("numbers", "parameters", "tags", "parent_numbers", "parent_tags")     # kinds whose every value is a thing
MOST_NUMBER_ENTRIES = 10_000    # of one record; beyond that the oldest are dropped
MOST_BYTES = 2 * 2**30          # of files that a run keeps for MLflow alone


@dataclass(frozen=True)
class Record:
    """The record of one verb of one run. It can be sent to workers, which add entries to it."""

    folder: Path

    @classmethod
    def new(cls, run_folder: Path, **facts: Any) -> Record:
        """An empty record, whose name sorts after those of earlier ones. facts: the content of `run.json`."""
        record = cls(run_folder / FOLDER / f"{_later_than(run_folder / FOLDER):020d}-{uuid.uuid4().hex[:8]}")
        record.folder.mkdir(parents=True)
        atomic_write(record.folder / "run.json", json.dumps({"began": milliseconds(), **facts}, indent=1).encode())
        return record

    @property
    def key(self) -> str:
        """The name by which MLflow's run of this record is found again."""
        return self.folder.name

    def state(self) -> dict[str, Any]:
        """The facts of the verb, and the run of MLflow once there is one. Raises BadInput where they are damaged."""
        facts = own_json(self.folder / "run.json", needs=FACTS, cure="Delete its folder: what waits there is lost.")
        return {**facts, **(whole_json(self.folder / "mlflow.json") or {})}

    def update(self, **values: Any) -> None:
        """Note facts about the run of MLflow."""
        known = whole_json(self.folder / "mlflow.json") or {}
        atomic_write(self.folder / "mlflow.json", json.dumps({**known, **values}, indent=1).encode())

    def begin(self) -> int:
        """Count one start of the verb; returns their number."""
        attempts = self.folder / "attempts"
        count = 1 + (attempts.stat().st_size if attempts.exists() else 0)
        atomic_write(attempts, b"." * count)
        return count

    def finish(self) -> None:
        """Mark the verb as finished: when it is run again, it gets a new record."""
        atomic_write(self.folder / "finished", b"")

    @property
    def is_finished(self) -> bool:
        """Whether the verb ended without an error."""
        return (self.folder / "finished").exists()

    def put(self, kind: str, values: Any, *, files: Path | None = None, contents: Mapping[str, bytes] | None = None
            ) -> int:
        """Add an entry; returns how many older numbers were dropped for it.

        files: a file or folder that belongs to it. contents: of further files, by name. Raises OSError where it cannot
        be written.
        """
        entry = self.folder / f"{_later_than(self.folder):020d}_{kind}.json"
        if files is not None or contents:
            _refuse_excess(self.folder.parent)
        if files is not None:
            _link_all(files, entry.with_suffix(""))
            store.put(entry.with_suffix(""), entry.with_suffix(""))
        for name, content in (contents or {}).items():
            entry.with_suffix("").mkdir(exist_ok=True)
            atomic_write(entry.with_suffix("") / name, content)
        atomic_write(entry, json.dumps(values, default=str).encode())
        return self._drop_oldest() if kind == "numbers" else 0

    def entries(self) -> list[Path]:
        """The entries that wait, in the order in which they were added."""
        return sorted(self.folder.glob("*_*.json"))

    def remove(self, entry: Path) -> None:
        """Remove an entry that was logged."""
        remove_file(entry)
        remove_folder(entry.with_suffix(""))

    def waiting(self) -> int:
        """How many things wait: each number, parameter and tag counts."""
        return sum(len(entry_values(entry) or ()) if _kind(entry) in COUNTED else 1
                   for entry in self.entries())

    def discard(self) -> None:
        """Remove the whole record."""
        remove_folder(self.folder)

    def _drop_oldest(self) -> int:
        numbers = [entry for entry in self.entries() if _kind(entry) == "numbers"]
        dropped = numbers[:max(len(numbers) - MOST_NUMBER_ENTRIES, 0)]
        count = sum(len(entry_values(entry) or ()) for entry in dropped)
        for entry in dropped:
            self.remove(entry)
        return count


def records(run_folder: Path) -> list[Record]:
    """The records of a run that still wait or whose verb is not finished, oldest first."""
    return [Record(path.parent) for path in sorted((run_folder / FOLDER).glob("*/run.json"))]


def waiting(run_folder: Path) -> int:
    """How many things of all verbs of a run wait to be logged."""
    return sum(record.waiting() for record in records(run_folder))


def kept_bytes(records_folder: Path, *, shared: bool = True) -> int:
    """The bytes of all files that belong to entries. shared: those too that lie elsewhere as well."""
    total = 0
    for path in paths_below(records_folder):
        with suppress(FileNotFoundError):       # it was logged meanwhile
            status = path.stat()
            belongs = len(path.relative_to(records_folder).parts) > 2 and stat.S_ISREG(status.st_mode)
            if belongs and (shared or status.st_nlink == 1):
                total += status.st_size
    return total


def entry_values(entry: Path) -> Any:
    """What an entry holds; None where it is gone, or a power cut has damaged it."""
    try:
        return parse_json(read_file(entry, largest=LARGEST_JSON))
    except (FileNotFoundError, ValueError):
        return None


@contextmanager
def logging_alone(run_folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process alone may log what a run holds, as long as the context is open. wait: until it may."""
    (run_folder / FOLDER).mkdir(parents=True, exist_ok=True)
    with (run_folder / FOLDER / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError as error:        # a file system without locks; logging twice at once does little harm
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        try:
            yield True
        finally:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)    # closing would not do: a forked loader may hold the file open


def _later_than(folder: Path) -> int:
    """The time now in nanoseconds, or more than that of every name in a folder: a clock may have been set back."""
    times = [re.match(r"[0-9]{20}", path.name) for path in folder.glob("*")]
    return max([time.time_ns(), *(int(found[0]) + 1 for found in times if found)])


def _kind(entry: Path) -> str:
    return entry.stem.partition("_")[2]


def _refuse_excess(kept: Path) -> None:
    """Raise OSError where the records in a folder hold too much already that lies nowhere else."""
    if kept_bytes(kept, shared=False) > MOST_BYTES:
        raise OSError(errno.EDQUOT, f"more than {MOST_BYTES / 2**30:.0f} GiB of files wait to be logged", str(kept))


def _link_all(source: Path, folder: Path) -> None:
    """Link a file, or all files of a folder, into `folder`."""
    store.fetch(source)
    paths = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    for path in paths:
        target = folder / (path.relative_to(source) if source.is_dir() else path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path.resolve(), target)
        except FileNotFoundError:
            raise
        except OSError:                 # another file system, or one without hard links
            shutil.copy2(path, target)


def milliseconds() -> int:
    """The time now, as MLflow counts it."""
    return time.time_ns() // 1_000_000
