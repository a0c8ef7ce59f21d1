"""Where a process may be hit: before its n-th change of a file or folder, or within a write that passes a size."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.storm.forked import kill_own_group

# Audit events of Python, besides that of opening a file to write. Most of them name a path first.
GROWING = frozenset(("os.mkdir", "os.link", "os.symlink"))
CHANGES = GROWING | {"os.rename", "os.remove", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def kill_at_change(place: Path, change: int) -> None:
    """Kill this process and its group before its `change`-th change below a folder, counted from 1."""
    act_at_change(place, change, kill_own_group)


def act_at_change(place: Path, change: int, act: Callable[[], object]) -> None:
    """Do something before the `change`-th change of this process below a folder, counted from 1."""
    _watch(place, lambda count, _: act() if count == change else None)


def count_changes(place: Path, file: Path) -> None:
    """Keep the number of changes that this process makes below a folder in a file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(descriptor, b"0", 0)
    _watch(place, lambda count, _: os.pwrite(descriptor, str(count).encode(), 0))


def kill_at_size(size: int) -> None:
    """Kill this process within the write by which any of its files would grow beyond `size` bytes, in any library."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)       # Python ignores the signal otherwise
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def quota_from_change(place: Path, change: int) -> None:
    """From its `change`-th change below a folder on, this process meets a used-up quota wherever it needs more room."""
    def refuse(count: int, path: str | None) -> None:
        if count >= change:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), *([path] if path else []))

    _watch(place, refuse, events=GROWING)


def _watch(place: Path, act: Callable[[int, str | None], object], *, events: frozenset[str] = CHANGES) -> None:
    """Call `act` before every change below a folder, and before a written file is forced to disk.

    act: gets the number of the change, counted from 1, and the path where the system names it in errors.
    """
    counter = itertools.count(1)
    below = os.fspath(place) + os.sep

    def hook(event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if (writes or event in events) and str(arguments[0]).startswith(below):
            act(next(counter), str(arguments[0]))

    def fsync(descriptor: int) -> None:
        act(next(counter), None)
        force(descriptor)

    sys.addaudithook(hook)
    force = os.fsync
    os.fsync = fsync
