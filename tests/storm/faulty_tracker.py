"""An MLflow server on this machine that works for some requests and then fails in one of several ways."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Fault = Literal["dies", "hangs", "error 500", "nonsense", "cut"]
FAULTS: tuple[Fault, ...] = ("dies", "hangs", "error 500", "nonsense", "cut")
DATABASE = "server.db"      # in the folder of a tracker
HANGING = 600.0     # seconds; longer than anybody waits


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A socket at an address of its own, which outlives the trackers that answer there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener


def address_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def tracker(folder: Path, listener: socket.socket, *, fault: Fault | None = None, after: int = 0) -> Iterator[None]:
    """A tracker that keeps its runs in a folder, in a process that ends with the block.

    fault: how it answers, or does not, from the request on that comes after the first `after` ones.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _serve_and_leave(listener, folder, fault, after)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _serve_and_leave(listener: socket.socket, folder: Path, fault: Fault | None, after: int) -> None:
    """The life of the server's process, which says everything into a file."""
    try:
        log = os.open(folder / "tracker.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{folder / DATABASE}"
        os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = (folder / "artifacts").as_uri()
        from mlflow.server import app
        from werkzeug.serving import make_server

        server = make_server("127.0.0.1", 0, _Faulty(app, fault, after), threaded=True, fd=listener.fileno())
        server.serve_forever()
    finally:
        os._exit(1)


class _Faulty:
    """A WSGI application that answers like another one for a while."""

    def __init__(self, app: Callable, fault: Fault | None, after: int) -> None:
        self.app = app
        self.fault = fault
        self.left = after

    def __call__(self, environment: dict, start_response: Callable) -> Iterator[bytes]:
        self.left -= 1
        if self.fault is None or self.left >= 0:
            return self.app(environment, start_response)
        match self.fault:
            case "dies":
                os._exit(0)
            case "hangs":
                time.sleep(HANGING)
            case "error 500":
                start_response("500 INTERNAL SERVER ERROR", [("Content-Type", "application/json")])
                return iter([b'{"error_code": "INTERNAL_ERROR", "message": "the storm"}'])
            case "nonsense":
                start_response("200 OK", [("Content-Type", "text/html")])
                return iter([b"<html><body>Please log in.</body></html>"])
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", "1000")])
        return iter([b'{"run": {'])
