"""Where a process may be killed: before its n-th change of a file or folder, or within a write that passes a size."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.storm.forked import kill_own_group

# Audit events of Python, besides that of opening a file to write. Most of them name a path first.
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def kill_at_change(place: Path, change: int) -> None:
    """Kill this process and its group before its `change`-th change below a folder, counted from 1."""
    _watch(place, lambda count: kill_own_group() if count == change else None)


def count_changes(place: Path, file: Path) -> None:
    """Keep the number of changes that this process makes below a folder in a file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(descriptor, b"0", 0)
    _watch(place, lambda count: os.pwrite(descriptor, str(count).encode(), 0))


def kill_at_size(size: int) -> None:
    """Kill this process within the write by which any of its files would grow beyond `size` bytes, in any library."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)       # Python ignores the signal otherwise
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _watch(place: Path, act: Callable[[int], None]) -> None:
    """Call `act` before every change below a folder, and before a written file is forced to disk."""
    counter = itertools.count(1)
    below = os.fspath(place) + os.sep

    def hook(event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if (writes or event in CHANGES) and str(arguments[0]).startswith(below):
            act(next(counter))

    def fsync(descriptor: int) -> None:
        act(next(counter))
        force(descriptor)

    sys.addaudithook(hook)
    force = os.fsync
    os.fsync = fsync
