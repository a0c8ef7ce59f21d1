"""A verb is never silent for long: a thread that waits for no work prints a line where nothing else has."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

LONGEST = 6.0           # seconds; the lines of progress come every 5

_heard = 0.0            # when this process printed last
_ended = threading.Event()


def break_silence(verb: str) -> None:
    """Print a line whenever this process has printed none for `LONGEST` seconds, until `fall_silent` is called."""
    for stream in (sys.stdout, sys.stderr):
        stream.write = _noted(stream.write)
    _note()
    threading.Thread(target=_watch, args=(verb,), daemon=True).start()


def fall_silent() -> None:
    """Print no such line from now on: the last lines of a verb are its own."""
    _ended.set()


def _noted(write: Callable[[str], int]) -> Callable[[str], int]:
    def noted(text: str) -> int:
        _note()
        return write(text)

    return noted


def _note() -> None:
    global _heard
    _heard = time.monotonic()


def _watch(verb: str) -> None:
    began = _heard
    while not _ended.wait(max(_heard + LONGEST - time.monotonic(), 0.1)):
        if time.monotonic() - _heard >= LONGEST:
            with suppress(OSError):         # nobody reads it
                # Takes no lock, which a process that is forked meanwhile would keep.
                os.write(2, f"{verb}: still at work after {time.monotonic() - began:.0f} s\n".encode())
            _note()
