"""Output of the verbs on the terminal."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from pipeline.printable import printable_lines, without_secrets
from pipeline.store import shown


def say(*lines: str, stream: TextIO | None = None) -> None:
    """Print lines without buffering, so that a job log shows them in order while it is followed.

    Names from data may hold characters that command a terminal; these are printed as escapes.
    A reader that has gone away (`| head`) or a log on a full disk does not end the verb: the rest is not printed.
    Paths that stand for addresses in stores are printed as addresses, and addresses without their passwords. stream:
    where to print; by default standard output.
    """
    stream = stream or sys.stdout
    try:
        print(_for_readers("\n".join(lines)), flush=True, file=stream)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def log_to_terminal() -> None:
    """Print what the verbs log in the same way."""
    handler = logging.StreamHandler()
    handler.setFormatter(Printable("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class Printable(logging.Formatter):
    """A message as `say` prints it."""

    def format(self, record: logging.LogRecord) -> str:
        return _for_readers(super().format(record))


def _for_readers(text: str) -> str:
    return printable_lines(without_secrets(shown(text)))


def accept_all_characters() -> None:
    """Print a character that the terminal's encoding lacks as an escape, instead of ending with an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
