"""Verbs and recipes: the command line of the project."""

import os
import sys

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SHADOW_CURE = "Start the verb in another folder, rename it, or set PYTHONSAFEPATH=1"

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
    """Stop where a folder that Python searches first holds another module of a name that is needed.

    Nothing but `os` and `sys`, which Python itself has imported, may be imported before.
    """
    if _is_verb() and (path := _shadow_in_first_folder()):
        _stop(f"{path} is in the way: Python finds it instead of a module that this project needs. {_SHADOW_CURE}")
    from importlib.util import find_spec
    for name in ("model", "pipeline"):
        spec = find_spec(name)
        place = spec.origin if spec and spec.has_location else None
        if place is None or not os.path.samefile(place, os.path.join(_ROOT, name, "__init__.py")):
            message = (f"{place or name} is in the way: Python finds it instead of this project's `{name}`. "
                       f"{_SHADOW_CURE}")
            if _is_verb():
                _stop(message)
            raise ImportError(message)


def _shadow_in_first_folder() -> str | None:
    """A file or package in the folder of the start with the name of one of Python's or of an installed package."""
    first = os.path.abspath(sys.path[0] or ".") if sys.path and not sys.flags.safe_path else _ROOT
    installed = [path for path in sys.path[1:] if path.endswith("-packages") and os.path.isdir(path)]
    if not os.path.isdir(first) or os.path.samefile(first, _ROOT) or first in installed:
        return None
    needed = {*sys.stdlib_module_names, *(name.removesuffix(".py") for path in installed for name in os.listdir(path))}
    needed -= {"test", "tests"}         # nothing imports those
    for name in sorted(os.listdir(first)) if os.access(first, os.R_OK) else ():
        if name.removesuffix(".py") in needed and (
                name.endswith(".py") or os.path.isfile(os.path.join(first, name, "__init__.py"))):
            return os.path.join(first, name)
    return None


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


def _stop(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


_open_closed_streams()
_refuse_lost_folder()
_refuse_shadows()
if sys.argv[:1] == ["-m"]:      # before the imports that take seconds
    from jobs.stopping import handle_signals
    handle_signals()
