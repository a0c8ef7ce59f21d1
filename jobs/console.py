"""Output of the verbs on the terminal."""

from __future__ import annotations

import os
import sys


def say(*lines: str) -> None:
    """Print lines without buffering, so that a job log shows them in order while it is followed.

    A reader that has gone away (`| head`) does not end the verb: the rest is not printed.
    """
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def accept_all_characters() -> None:
    """Print a character that the terminal's encoding lacks as an escape, instead of ending with an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
