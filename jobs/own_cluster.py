"""A Ray cluster of this machine alone, for a verb that joins no other. It starts beside any other Ray that runs."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray

from jobs.environment import variables
from pipeline.disk_space import free_bytes

LONGEST_RAY_FOLDER = 40             # bytes: Ray appends up to 66, and the path of a socket has at most 107
SHORT_TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
LEAST_OBJECT_STORE_MB = 75          # that Ray accepts
LEAST_ROOM = 20 * 2**20             # bytes that the logs and sockets of one verb need
OWN_VARIABLES = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_CLIENT_MODE", "RAY_ENABLE_UV_RUN_RUNTIME_ENV",
                 "RAY_GCS_SERVER_PORT")         # which the verbs and Ray set
SHARED_MEMORY = "/dev/shm"          # where Ray keeps its object store; without it, beside its sockets
SPECIAL = re.compile(r"""[\s()\[\]{}&;|<>*?$`'"\\!#~]""")     # in a shell's words; Ray does not quote its commands


def start_own_cluster(*, cpus: int, object_store_mb: int, environment: Mapping[str, str]) -> None:
    """Start Ray on this machine with so many CPUs. environment: variables of all its processes.

    Raises ValueError naming a path that Ray cannot work in, or too small a store, and ConnectionError where Ray does
    not start.
    """
    if object_store_mb < LEAST_OBJECT_STORE_MB:
        raise ValueError(f"cluster.object_store_mb={object_store_mb} is less than Ray accepts; set "
                         f"cluster.object_store_mb={LEAST_OBJECT_STORE_MB} or more")
    refuse_special_paths({"the Python of this environment": sys.executable, "the Ray package": ray.__file__})
    refuse_missing_loopback()
    # Without a token in the environment, Ray writes one to the home folder, which may be read-only.
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = uuid.uuid4().hex
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)       # says that there is a token
    # A helper of Ray Train looks for "the" cluster of this machine and fails where there are two. The address is known
    # beforehand only if the port is chosen here.
    port = str(_free_port())
    workers = {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}", "TMPDIR": tempfile.gettempdir()}
    folder = ray_folder()
    # Ray's own processes keep sockets in TMPDIR too.
    with variables(RAY_GCS_SERVER_PORT=port, TMPDIR=str(folder.parent)), failure_named(folder):
        # Ray Train watches its own controller through the dashboard's state service and complains without it. Ray would
        # start an idle process for each CPU, in which nothing runs here, since all work has an environment of its own.
        ray.init(address="local", num_cpus=cpus, include_dashboard=True, _temp_dir=str(folder),
                 _system_config={"prestart_worker_first_driver": False},
                 runtime_env={"env_vars": workers}, object_store_memory=object_store_mb * 2**20, log_to_driver=True,
                 logging_level="warning", _plasma_directory=None if os.access(SHARED_MEMORY, os.W_OK) else str(folder))


@contextmanager
def failure_named(folder: Path) -> Iterator[None]:
    """Turn whatever Ray raises while it starts into a ConnectionError with its logs and the cures."""
    given = sorted(name for name in os.environ if name.startswith("RAY_") and name not in OWN_VARIABLES)
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        left = free_bytes(folder)
        room = "" if left >= LEAST_ROOM else (f" Only {left:,} bytes are free there: make room, or set RAY_TMPDIR to a "
                                              "folder with room, whose path is short.")
        unset = f" Unset what you do not need of {', '.join(given)}." if given else ""
        raise ConnectionError(f"Ray does not start on this machine ({reason}); its logs are in {folder}/session_latest/"
                              f"logs.{room}{unset} If this machine is busy, wait and run the command again. Look at "
                              "the limits of this user (ulimit -a), or run without Ray by "
                              "--set cluster.in_process=true") from error


def ray_folder() -> Path:
    """The folder for Ray's sockets and logs, in that of the system or in a shorter one where paths would be too long.

    One without room is passed over.

    It is named `ray` as Ray itself does, or with the number of the user where that belongs to somebody else. Raises
    ValueError where there is none.
    """
    chosen = os.path.abspath(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())     # workers run in other folders
    for place in map(Path, (chosen, *SHORT_TEMPORARY_FOLDERS)):
        for folder in (place / "ray", place / f"ray-{os.geteuid()}"):
            fits = len(os.fsencode(folder)) <= LONGEST_RAY_FOLDER and not SPECIAL.search(str(folder))
            nearest = folder if os.path.lexists(folder) else place
            has_room = nearest.is_dir() and free_bytes(nearest) >= LEAST_ROOM
            if fits and has_room and os.access(nearest, os.W_OK | os.X_OK):
                return folder
    raise ValueError(f"Ray cannot keep its sockets in {chosen}: the path must have at most {LONGEST_RAY_FOLDER - 4} "
                     "bytes, no special characters and 20 MB of room, and none of "
                     f"{', '.join(SHORT_TEMPORARY_FOLDERS)} can be written. Set TMPDIR to a short folder, or run "
                     "without Ray by --set cluster.in_process=true")


def refuse_special_paths(paths: Mapping[str, str]) -> None:
    """Raise ValueError for a path with a character that a shell reads: Ray's workers would never start."""
    for name, path in paths.items():
        if found := SPECIAL.search(path):
            raise ValueError(f"{name} is {path}, and Ray cannot start workers from a path with the character "
                             f"{found.group()!r}. Move the clone to another folder and run `make clean`, make the "
                             "environment elsewhere (make VENV=/short/path), or run without Ray by "
                             "--set cluster.in_process=true")


def refuse_missing_loopback() -> None:
    """Raise ConnectionError where this machine does not reach itself: Ray's processes would wait for each other."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        raise ConnectionError(f"Ray does not start on this machine: its processes talk to each other on 127.0.0.1, "
                              f"which does not answer ({error.strerror or error}). Bring the loopback interface up "
                              "(ip link set lo up), or run without Ray by --set cluster.in_process=true") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
