"""Verbs and recipes: the command line of the project."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

# Read when Ray is imported. Under `uv run`, Ray would otherwise build an environment for its workers, and wait for it.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


def _open_closed_streams() -> None:
    """Open /dev/null where stdin, stdout or stderr are closed: the next file to be opened would take their place."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)      # takes the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w")     # noqa: SIM115 - open as long as the process is
    sys.stderr = sys.stderr or open(2, "w")     # noqa: SIM115


def _refuse_shadows() -> None:
    """Stop where a folder that Python searches first holds another `model` or `pipeline`."""
    for name in ("model", "pipeline"):
        spec = importlib.util.find_spec(name)
        place = Path(spec.origin) if spec and spec.has_location else None
        if place is None or not place.samefile(Path(__file__).parents[1] / name / "__init__.py"):
            message = (f"{place or name} is in the way: Python finds it instead of this project's `{name}`. Start the "
                       "verb in another folder, rename it, or set PYTHONSAFEPATH=1")
            if _is_verb():
                _stop(message)
            raise ImportError(message)


def _refuse_lost_folder() -> None:
    """Stop where the folder in which the verb was started is gone: torch would end the process in native code."""
    try:
        os.getcwd()
    except OSError:
        if _is_verb():
            _stop("the folder in which you started this command does not exist any more; change to another one (cd)")


def _is_verb() -> bool:
    """Whether Python was started as `python -m jobs.<verb>`."""
    return sys.argv[:1] == ["-m"]


def _stop(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


_open_closed_streams()
_refuse_lost_folder()
_refuse_shadows()
if sys.argv[:1] == ["-m"]:      # before the imports that take seconds
    from jobs.stopping import handle_signals
    handle_signals()
