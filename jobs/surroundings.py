"""What has to be right around a verb before it imports anything large; else one line says what is in the way.

Nothing but `os`, `sys` and modules inside Python's program may be imported before `refuse_shadows`.
"""

import _imp
import os
import sys

SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"       # set by `ray job submit`: the job's configuration

# Installs the pinned set and this project on each host, from the code that the job brings.
RUNTIME_ENVIRONMENT = ('{"pip": ["-c ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/infra/constraints.txt", '
                       '"${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"]}')
INSTALL = f"let the job install them: ray job submit ... --runtime-env-json '{RUNTIME_ENVIRONMENT}' -- ..."

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SUFFIXES = (*_imp.extension_suffixes(), ".pyc", ".py")        # of files that are imported, longest first


def is_verb() -> bool:
    """Whether Python was started as `python -m jobs.<verb>`."""
    return sys.argv[:1] == ["-m"]


def open_closed_streams() -> None:
    """Open /dev/null where stdin, stdout or stderr are closed: the next file to be opened would take their place."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)      # takes the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w")     # noqa: SIM115 - open as long as the process is
    sys.stderr = sys.stderr or open(2, "w")     # noqa: SIM115


def refuse_lost_folder() -> None:
    """Stop where the folder in which the verb was started is gone: torch would end the process in native code."""
    try:
        os.getcwd()
    except OSError:
        if is_verb():
            _stop("the folder in which you started this command does not exist any more; change to another one (cd)")


def refuse_shadows() -> None:
    """Stop where a folder that Python searches first holds another module of a name that is needed."""
    if is_verb():
        for folder in _folders_searched_first():
            if path := _shadow_in(folder):
                _stop(f"{path} is in the way: Python finds it instead of a module that this project needs. "
                      f"{_cure(folder)}")
    from importlib.util import find_spec
    for name in ("model", "pipeline"):
        spec = find_spec(name)
        place = spec.origin if spec and spec.has_location else None
        if place is None or not os.path.samefile(place, os.path.join(_ROOT, name, "__init__.py")):
            message = (f"{place or name} is in the way: Python finds it instead of this project's `{name}`. "
                       f"{_cure(_folder_of(name, place))}")
            if is_verb():
                _stop(message)
            raise ImportError(message)


def refuse_other_python() -> None:
    """Stop where this Python lacks the packages of the project, since it is not that of their environment."""
    from jobs.node_probe import missing_modules
    missing = missing_modules()
    if missing and SUBMITTED_JOB in os.environ:     # whose folder is a copy of the code without an environment
        _stop(f"{sys.executable}, which runs the job, lacks the packages of {', '.join(missing)}; {INSTALL}")
    if missing:
        activate = os.path.join(_ROOT, ".venv", "bin", "activate")
        made = f"activate the environment of this project (. {activate})" if os.path.exists(activate) else \
            "`make demo` and `make test` create an environment with them; then activate it (. .venv/bin/activate)"
        _stop(f"{sys.executable} lacks packages that this project needs, such as {missing[0]}: {made}, or install "
              f"them here (pip install -c infra/constraints.txt {_ROOT})")


def keep_warnings_harmless() -> None:
    """Undo `error` in -W and PYTHONWARNINGS: a warning of any installed package would end a verb, or Ray's workers."""
    if not any(map(_makes_errors, sys.warnoptions)):
        return
    import warnings
    sys.warnoptions[:] = [option for option in sys.warnoptions if not _makes_errors(option)]
    warnings.filters[:] = [entry for entry in warnings.filters if entry[0] != "error"]
    given = os.environ.get("PYTHONWARNINGS", "").split(",")
    os.environ["PYTHONWARNINGS"] = ",".join(option for option in given if not _makes_errors(option))


def refuse_missing_temporary_folder() -> None:
    """Stop where no temporary file can be written anywhere: torch would fail while it is imported."""
    from tempfile import gettempdir
    try:
        gettempdir()
    except FileNotFoundError as error:
        _stop(f"{error.strerror}: none can be written, or all are full. Set TMPDIR to a folder that this user may "
              "write, with room")


def say_that_it_starts() -> None:
    """Print the first line of a verb, since its imports take seconds, and from now on whenever it is silent."""
    verb = next((word.removeprefix("-m") for word in sys.orig_argv if word.removeprefix("-m").startswith("jobs.")), "")
    if verb and not {"-h", "--help"} & set(sys.orig_argv):
        from contextlib import suppress
        with suppress(OSError):     # nobody reads it
            print(f"{verb}: loading the libraries", file=sys.stderr, flush=True)
        from jobs.silence import break_silence
        break_silence(verb)


def _folders_searched_first() -> list[str]:
    """The folders that Python searches before its own ones."""
    first = [] if sys.flags.safe_path else sys.path[:1]
    return [os.path.abspath(folder or ".") for folder in (*first, *_python_path())]


def _python_path() -> list[str]:
    given = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    return [os.path.abspath(folder or ".") for folder in given.split(os.pathsep)] if given else []


def _folder_of(module: str, place: str | None) -> str:
    """The folder in which Python found a module; place: its file, None for a package without one."""
    folder = os.path.dirname(os.path.abspath(place or module))
    return os.path.dirname(folder) if os.path.basename(folder) == module else folder


def _cure(folder: str) -> str:
    """What to do about a file or package in a folder that Python searches first."""
    if folder in _python_path():
        return "Take its folder out of PYTHONPATH, or rename it"
    return "Start the verb in another folder, rename it, or set PYTHONSAFEPATH=1"


def _shadow_in(folder: str) -> str | None:
    """A file or package in a folder with the name of one of Python's or of an installed package."""
    installed = [path for path in sys.path[1:]
                 if path.endswith("-packages") and os.path.isdir(path) and path not in _python_path()]
    if not os.path.isdir(folder) or any(os.path.samefile(folder, path) for path in (_ROOT, *installed)):
        return None
    needed = {*sys.stdlib_module_names, *(_module_of(name) for path in installed for name in os.listdir(path))}
    needed -= {"test", "tests"}         # nothing imports those
    for name in sorted(os.listdir(folder)) if os.access(folder, os.R_OK) else ():
        if _module_of(name) in needed and (
                name.endswith(_SUFFIXES) or os.path.isfile(os.path.join(folder, name, "__init__.py"))):
            return os.path.join(folder, name)
    return None


def _module_of(name: str) -> str:
    """The name by which a file or folder is imported, where it can be."""
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


def _makes_errors(option: str) -> bool:
    """Whether an option of -W makes warnings errors; Python takes any beginning of the word."""
    action = option.partition(":")[0].strip()
    return bool(action) and "error".startswith(action)


def ended(code: int, reason: str, message: str) -> str:
    """The last line of a submitted job that failed, since Ray turns every exit code into 1."""
    return f"ended with exit code {code} ({reason}): {message}"


def _stop(message: str) -> None:
    """Print one line, in a submitted job also the last one, and end the process."""
    print(f"error: {message}", file=sys.stderr)
    if SUBMITTED_JOB in os.environ:
        print(ended(2, "configuration", message), file=sys.stderr)
    raise SystemExit(2)
