"""Which process of which machine it is, as the names of partial files and the notes of who is at work tell it."""

from __future__ import annotations

import hashlib
import os
import socket
from functools import cache
from pathlib import Path

_PROCESSES = Path("/proc")


@cache
def machine() -> str:
    """Eight hex digits for where a process number means the same: a boot of a machine, or of a container on it."""
    parts = [socket.gethostname()]
    for name, read in (("sys/kernel/random/boot_id", Path.read_text), ("self/ns/pid", os.readlink)):
        try:
            parts.append(str(read(_PROCESSES / name)).strip())
        except OSError:         # not Linux: the name of the host has to do
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def start_of(process: int) -> str:
    """When a process of this machine was started, in a form that tells it from a later one of the same number.

    "" where it does not run any more, or is dead and only not yet waited for.
    """
    try:
        fields = (_PROCESSES / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "unknown" if not _PROCESSES.is_dir() and _answers(process) else ""
    state, start = fields[0], fields[19]
    return "" if state in "ZX" else start


def is_alive(process: int, *, start: str = "") -> bool:
    """Whether a process of this machine runs. start: its `start_of`, where it is known."""
    actual = start_of(process)
    return bool(actual) and actual in (start or actual, "unknown")


def _answers(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
