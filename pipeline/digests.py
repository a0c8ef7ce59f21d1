"""Files compared with the sha256 that is recorded of them: each once a process, and without reading it where possible.

A file that was read before is not read again while its size, inode and times of change are the same. What was read is
kept in memory, and for the next process in a folder of this user and this machine below the folder of temporary files:
never beside the files, since a copy on another machine has to be read there. There, a file holds what was read of one
folder, a line for each reading, so that a folder of many files costs each of them one line.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import Mismatch
from pipeline.files import canonical_json, digest, sha256_of

SETTLED = 2.0               # seconds since the last change; a younger file can change again within a tick of its clock
LARGE = 2**31               # bytes of a file whose reading is announced
LONGEST_RECORD = 2**28      # bytes of what was read of one folder; more than a million files have

log = logging.getLogger(__name__)


class _Memory:
    """What this process knows of files: its own readings and those of the records that it has read so far."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[list[int], str]] = {}       # path -> its state, and its sha256 then
        self._read: dict[Path, tuple[int, int]] = {}            # record -> its inode, and the bytes read of it

    def recall(self, path: str) -> str | None:
        """The sha256 of a file that has not changed since it was read."""
        known = self.known.get(path)
        return known[1] if known is not None and known[0] == _state(path) else None

    def learn(self, record: Path, folder: str) -> None:
        """Read what was added to a record, whose folder is `folder`. Lines that are cut or damaged are passed over."""
        with suppress(OSError), record.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            before, offset = self._read.get(record, (inode, 0))
            file.seek(offset if before == inode else 0)
            for line in file:
                with suppress(ValueError, TypeError):
                    name, *state, value = json.loads(line.decode())     # of bytes, it would guess the encoding
                    if isinstance(name, str) and isinstance(value, str):
                        self.known[f"{folder}/{name}"] = state, value
            self._read[record] = inode, file.tell()


_memory = _Memory()


def known_sha256(path: Path | str) -> str:
    """sha256 of a file's content, in hex. The file is read only where it has changed since it was read before."""
    path = os.path.realpath(path)
    if (value := _memory.recall(path)) is not None:
        return value
    folder, name = os.path.split(path)
    with _record(folder) as record:
        if record is not None:
            _memory.learn(record, folder)
            if (value := _memory.recall(path)) is not None:
                return value
        state = _state(path)
        value = _read(path, state)
        if _is_settled(state) and _state(path) == state:
            _memory.known[path] = state, value
            if record is not None:
                with suppress(OSError):     # a full disk costs the next process some reading
                    _append(record, [name, *state, value])
    return value


def remembered_sha256(folder: Path | str, names: Iterable[str]) -> dict[str, str]:
    """Name -> sha256 of those files in a folder that were read before and have not changed since. None is read."""
    folder = os.path.realpath(folder)
    with _record(folder) as record:
        if record is not None:
            _memory.learn(record, folder)
    values = {}
    for name in names:
        with suppress(OSError):
            values[name] = _memory.recall(f"{folder}/{name}")
    return {name: value for name, value in values.items() if value is not None}


def refuse_other_content(path: Path | str, expected: str, *, listed_in: str, cure: str) -> None:
    """Raise Mismatch, with both values and the cure, unless a file has the sha256 that `listed_in` records of it."""
    if (actual := known_sha256(path)) != expected:
        raise Mismatch(f"{path} has sha256 {actual[:12]}..., but {listed_in} lists {expected[:12]}...: the file is "
                       f"damaged, or the two do not belong together. {cure}")


def _state(path: str) -> list[int]:
    """All that a change of a file changes: nobody can set the time of a change of the inode."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _is_settled(state: list[int]) -> bool:
    return time.time_ns() - max(state[1:3]) > SETTLED * 1e9


def _read(path: str, state: list[int]) -> str:
    if state[0] > LARGE:
        log.info("comparing %s (%.1f GB) with its sha256, once on this machine", path, state[0] / 1e9)
    return sha256_of(Path(path))


def _append(record: Path, row: list) -> None:
    """Add a line, on a line of its own even where the one before was cut. A record that has grown long begins anew."""
    if record.exists() and record.stat().st_size > LONGEST_RECORD:
        record.unlink()
    with record.open("ab") as file:
        file.write(b"\n" + canonical_json(row) + b"\n")


@contextmanager
def _record(folder: str) -> Iterator[Path | None]:
    """The file that holds what was read of a folder; one process at a time, so that others wait instead of reading too.

    None where this machine has no place for it that is this user's alone.
    """
    place = Path(tempfile.gettempdir()) / f"maxtron-{os.getuid()}-{socket.gethostname()}"
    with suppress(OSError):
        place.mkdir(mode=0o700, exist_ok=True)
    try:
        status = place.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise PermissionError
        record = place / f"{digest(folder)[:32]}.jsonl"
        lock = record.with_suffix(".lock").open("a")
    except OSError:
        yield None
        return
    with lock:
        with suppress(OSError):             # a file system without locks costs a second reading
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield record
