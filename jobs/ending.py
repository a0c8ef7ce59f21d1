"""The end of a verb's process, which is not silent for seconds after the last line."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

from jobs.surroundings import SUBMITTED_JOB, ended

T = TypeVar("T")


def end_process(code: int) -> NoReturn:
    """End the process with this exit code.

    Threads and registered functions end as usual. Taking apart the modules is left out where the process is the verb
    alone: that of torch and MLflow lasts 2 to 5 seconds.
    """
    if not _is_the_verb():
        sys.exit(code)
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def answered(parse: Callable[[], T]) -> T:
    """What the parser of a command line returns; where it prints the help or an error, the process ends at once."""
    try:
        return parse()
    except SystemExit as end:
        code = end.code or 0
        if code and SUBMITTED_JOB in os.environ:
            with suppress(OSError):
                print(ended(code, "usage", "the command line is wrong, as the lines above say"), file=sys.stderr)
        end_process(code)


def _is_the_verb() -> bool:
    """Whether Python was started as `python -m jobs.<verb>`, and not by a test or a profiler."""
    module = next((index for index, word in enumerate(sys.orig_argv) if word.startswith("-m")), len(sys.orig_argv))
    return "".join(sys.orig_argv[module:module + 2]).startswith("-mjobs.")
