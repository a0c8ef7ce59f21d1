"""Files that are complete or absent, because they are written under a temporary name first; and digests of content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pipeline import store
from pipeline.disk_space import UNWRITABLE, named
from pipeline.errors import BadInput
from pipeline.foreign_files import open_regular
from pipeline.living_folders import paths_below
from pipeline.processes import is_alive, machine

PARTIAL = ".partial"    # suffix of a file, or of a folder, that is still being written
ABANDONED = 3600.0      # seconds without a change after which a partial file of another machine is nobody's


@contextmanager
def atomic_file(path: Path, *, needed: int | None = None) -> Iterator[IO[bytes]]:
    """A binary file that appears as `path` only when the block ends without an error, and then survives a power cut.

    needed: bytes to be written, for messages. Raises OSError naming `path` when the disk is full or cannot be written
    to; no file is left behind then.
    """
    partial = partial_path(path)
    try:
        with naming(path, needed=needed), open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(partial, path)
    except BaseException:
        with suppress(OSError):         # a read-only file system raises even where there is nothing to delete
            partial.unlink()
        raise


def publish(partial: Path, path: Path) -> None:
    """Give a complete file its name, in place of an earlier one, so that the name survives a power cut too.

    Two writers of the same file may both do so: each has a partial file of its own, and whole bytes replace whole
    bytes. What belongs into a store is uploaded first. Raises OSError, with the cure where a folder has the name.
    """
    store.put(partial, path)
    with _no_folder(path):
        os.replace(partial, path)
    _sync_folder(path.parent)


def remove_file(path: Path) -> None:
    """Delete a file that may be there. Raises OSError, with the cure where a folder has its name."""
    store.remove(path)
    with _no_folder(path):
        path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder that may be there, and all that is in it."""
    store.remove(folder)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _no_folder(path: Path) -> Iterator[None]:
    """Add the cure to the error that a folder in the place of a file makes."""
    try:
        yield
    except IsADirectoryError as error:
        error.add_note(f"{path} is a folder where a file belongs: remove it, then run the same command again.")
        raise


def partial_path(path: Path) -> Path:
    """A new name beside `path` for writing it, which tells the process that writes.

    It is not longer than file systems allow, where that of `path` is not.
    """
    return path.with_name(f"{path.name[:50]}.{machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{PARTIAL}")


@contextmanager
def naming(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Give an OSError without a file name, such as that of a failed write, the name of `path` and a cure.

    The name of a file that is still being written gives way to that of `path` too. needed: bytes to be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or not (error.filename is None or os.fsdecode(error.filename).endswith(PARTIAL)):
            raise
        raise named(error, path, needed) from error


def atomic_write(path: Path, content: bytes) -> None:
    """Replace the content of `path`, or leave it as it was. Raises OSError naming it.

    A file that cannot be written, but has this content, is fine as it is: a finished run may be read-only.
    """
    try:
        with atomic_file(path, needed=memoryview(content).nbytes) as file:
            file.write(content)
    except OSError as error:
        if error.errno not in UNWRITABLE or not _has_content(path, content):
            raise


def _has_content(path: Path, content: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return os.fstat(file.fileno()).st_size == len(content) and file.read() == content
    except (OSError, BadInput):
        return False


def sweep_partials(folder: Path, pattern: str | None = None) -> int:
    """Delete the files and folders in a folder that writers left half written which are gone; returns their count.

    pattern: of the names directly in the folder that are looked at; None for all below it. Those of living processes of
    this machine stay, and those of other machines unless nothing has changed for an hour. Names without a process come
    from earlier versions; whoever calls this must be the only one at work in the folder. Partial files of other
    programs stay.
    """
    swept = 0
    for partial in list(paths_below(folder) if pattern is None else folder.glob(pattern)):
        if _is_abandoned(partial):
            swept += 1
            if partial.is_dir() and not partial.is_symlink():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)
    return swept


def _is_abandoned(partial: Path) -> bool:
    owner = re.search(r"\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.partial$", partial.name)
    if owner is None:
        return re.search(r"(\.[0-9a-f]{4,12}|queries-\d{6}(-view-\d+)?)\.partial$", partial.name) is not None
    if owner[1] == machine():
        return not is_alive(int(owner[2]))
    try:
        return age(partial) > ABANDONED
    except OSError:                 # its writer has just finished, or nothing can be written or deleted there
        return False


def age(path: Path) -> float:
    """Seconds since a file or folder was changed, by the clock of its file system, which all machines share.

    Raises OSError where it is gone, or where no file can be created beside it.
    """
    now = partial_path(path)
    try:
        now.touch()
        return now.stat().st_mtime - path.stat().st_mtime
    finally:
        now.unlink(missing_ok=True)


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces, ASCII only and no NaN, so that equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of plain values, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_of(path: Path) -> str:
    """sha256 of a file's content, in hex. Raises OSError, and BadInput "not-a-file" for a pipe, socket or device."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
