"""Files compared with the sha256 that is recorded of them: each once a process, and without reading it where possible.

A file that was read before is not read again while its size, inode and times of change are the same. What was read is
kept in memory, and for the next process in a folder of this user and this machine below the folder of temporary files:
never beside the files, since a copy on another machine has to be read there.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import Mismatch
from pipeline.files import atomic_write, canonical_json, digest, sha256_of
from pipeline.foreign_files import whole_json

SETTLED = 2.0               # seconds since the last change; a younger file can change again within a tick of its clock
LARGE = 2**31               # bytes of a file whose reading is announced

log = logging.getLogger(__name__)

_known: dict[str, tuple[list[int], str]] = {}       # path -> its state, and its sha256 then


def known_sha256(path: Path | str) -> str:
    """sha256 of a file's content, in hex. The file is read only where it has changed since it was read before."""
    path = Path(os.path.realpath(path))
    state = _state(path)
    if (known := _known.get(str(path))) is not None and known[0] == state:
        return known[1]
    with _record(path.parent) as record:
        rows = {} if record is None else whole_json(record) or {}
        row = rows.get(path.name)
        if isinstance(row, list) and row[:-1] == state:
            value = str(row[-1])
        else:
            value = _read(path, state)
            if not _is_settled(state) or _state(path) != state:
                return value
            if record is not None:
                with suppress(OSError):     # a full disk costs the next process some reading
                    atomic_write(record, canonical_json({**rows, path.name: [*state, value]}))
    _known[str(path)] = state, value
    return value


def refuse_other_content(path: Path | str, expected: str, *, listed_in: str, cure: str) -> None:
    """Raise Mismatch, with both values and the cure, unless a file has the sha256 that `listed_in` records of it."""
    if (actual := known_sha256(path)) != expected:
        raise Mismatch(f"{path} has sha256 {actual[:12]}..., but {listed_in} lists {expected[:12]}...: the file is "
                       f"damaged, or the two do not belong together. {cure}")


def _state(path: Path) -> list[int]:
    """All that a change of a file changes: nobody can set the time of a change of the inode."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _is_settled(state: list[int]) -> bool:
    return time.time_ns() - max(state[1:3]) > SETTLED * 1e9


def _read(path: Path, state: list[int]) -> str:
    if state[0] > LARGE:
        log.info("comparing %s (%.1f GB) with its sha256, once on this machine", path, state[0] / 1e9)
    return sha256_of(path)


@contextmanager
def _record(folder: Path) -> Iterator[Path | None]:
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
        record = place / f"{digest(str(folder))[:32]}.json"
        lock = record.with_suffix(".lock").open("a")
    except OSError:
        yield None
        return
    with lock:
        with suppress(OSError):             # a file system without locks costs a second reading
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield record
