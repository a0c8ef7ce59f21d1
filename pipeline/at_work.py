"""One verb at a time in a folder: the file `.at_work.partial` tells the verb, its host and its process.

A verb that finds another one says so and waits for it. The note of a dead one is taken over: on the same machine as
soon as its process is gone, on another one when its note has not been touched for `SILENT` seconds. (On a file system
without locks two machines could take over at the same moment. The bytes stay right, since both publish whole files.)
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.files import age, naming, sweep_partials
from pipeline.foreign_files import whole_json
from pipeline.processes import is_alive, machine, start_of

NOTE = ".at_work.partial"    # it ends like every other file that a killed verb may leave
TOUCH_EVERY = 20.0          # seconds
SILENT = 300.0              # seconds after which the verb of another machine counts as dead
LOOK_EVERY = 1.0            # seconds
_FIELDS = {"verb": str, "host": str, "process": int, "start": str, "machine": str, "since": str, "token": str}

log = logging.getLogger(__name__)


@contextmanager
def alone_in(folder: Path, verb: str) -> Iterator[None]:
    """Let this process alone work in a folder, which is made; waits while another one does, and tells who that is.

    Partial files that dead writers left there are deleted. A folder that cannot be written to is left as it is: then
    nobody works there. Raises OSError, with the cure, where the disk is full.
    """
    made: list[Path] = []
    note = None
    try:
        made = _missing(folder)
        folder.mkdir(parents=True, exist_ok=True)
        note = _claim(folder, verb)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    if note is None:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_touch, args=(folder / NOTE, ended), daemon=True)
    thread.start()
    try:
        if swept := sweep_partials(folder):
            log.info("removed %d unfinished files of an earlier run from %s", swept, folder)
        yield
    finally:
        ended.set()
        thread.join()
        _release(folder, note)
        for path in made:                   # an empty folder is not left behind
            with suppress(OSError):
                path.rmdir()


def _missing(folder: Path) -> list[Path]:
    """The folders that have to be made, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _claim(folder: Path, verb: str) -> dict[str, Any]:
    """Write the note as soon as no living verb has one there."""
    note = {"verb": verb, "host": socket.gethostname(), "process": os.getpid(), "start": start_of(os.getpid()),
            "machine": machine(), "since": time.strftime("%Y-%m-%d %H:%M:%S"), "token": uuid.uuid4().hex}
    told = None
    while True:
        with _one_moment(folder):
            other = _living(folder / NOTE)
            if other is None:
                with suppress(FileExistsError):     # without locks, another process may have been faster
                    _write(folder / NOTE, note)
                    return note
                continue
        if other.get("token") != told:
            told = other.get("token")
            log.warning("waiting: %s is at work in %s (host %s, process %s, since %s); Ctrl-C to leave it alone",
                        other.get("verb"), folder, other.get("host"), other.get("process"), other.get("since"))
        time.sleep(LOOK_EVERY)


def _living(path: Path) -> dict[str, Any] | None:
    """The note of a verb that is at work; None where there is none, after deleting that of a dead one."""
    note = whole_json(path, needs=_FIELDS)
    try:
        if note is not None and note["machine"] == machine():
            alive = is_alive(note["process"], start=note["start"])
        else:                           # on another machine, or cut off by a power cut
            alive = age(path) < SILENT
    except FileNotFoundError:
        return None
    if alive:
        return note or {"verb": "a verb", "host": "unknown", "process": "unknown", "since": "unknown", "token": ""}
    path.unlink(missing_ok=True)
    if note is not None:
        log.warning("%s was at work in %s (host %s, process %s, since %s) and is gone; continuing", note["verb"],
                    path.parent, note["host"], note["process"], note["since"])
    return None


def _write(path: Path, note: dict[str, Any]) -> None:
    """Write a note. Raises FileExistsError where there is one, and OSError, which names it, where there is no room."""
    with open(path, "x") as file:
        try:
            with naming(path):
                json.dump(note, file)
                file.flush()
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _touch(path: Path, ended: threading.Event) -> None:
    while not ended.wait(TOUCH_EVERY):
        with suppress(OSError):
            os.utime(path)


def _release(folder: Path, note: dict[str, Any]) -> None:
    """Delete the note, unless another verb has taken it for that of a dead one."""
    with suppress(OSError), _one_moment(folder):
        if note["process"] == os.getpid() and (whole_json(folder / NOTE) or {}).get("token") == note["token"]:
            (folder / NOTE).unlink(missing_ok=True)


@contextmanager
def _one_moment(folder: Path) -> Iterator[None]:
    """Nobody else of this machine, or on file systems with locks of any, is here at the same time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
