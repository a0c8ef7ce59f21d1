"""Trackers that fail: a real MLflow server that is killed and started again, behind a proxy that hangs or fails."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# What `mlflow server` serves, without the processes for jobs and gateways around it, which take a minute to start.
SERVE = ("import sys; from mlflow.server import app; "
         "app.run(host=sys.argv[1], port=int(sys.argv[2]), threaded=True)")


class Server:
    """An MLflow server at an address of this machine, with its database in a folder."""

    def __init__(self, folder: Path, *, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self.address = address
        self.port = free_port()
        self.process: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        return f"http://{self.address}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(exist_ok=True)
        variables = {"_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{self.folder / 'server.db'}",
                     "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/", "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
                     "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(self.folder / "files"),
                     "MLFLOW_SERVER_ALLOWED_HOSTS": f"{self.address}:*", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen([sys.executable, "-c", SERVE, self.address, str(self.port)], stdout=log,
                                            stderr=log, start_new_session=True, env=os.environ | variables)
        ends = time.monotonic() + 240
        while not self._answers():
            if time.monotonic() > ends or self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill it with its worker processes."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class Proxy:
    """Passes requests on to a server. mode: "pass", "hang" (no answer), "error" (500), "slow" or "cut" (no answer to a
    request that the server has carried out)."""

    def __init__(self, server: Server, *, delay: float = 1.0) -> None:
        self.mode = "pass"
        self.requests = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                proxy.requests += 1
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                mode = proxy.mode
                if mode == "hang":
                    proxy.closed.wait(60)
                    return
                if mode == "slow":
                    time.sleep(delay)
                status, headers, content = 500, [], b"no"
                if mode != "error":
                    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
                    connection.request(self.command, self.path, body, dict(self.headers))
                    response = connection.getresponse()
                    status, headers, content = response.status, response.getheaders(), response.read()
                if mode == "cut":
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_) -> None:
                """Nothing."""

        self.closed = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None        # a client that went away
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.closed.set()
        self.http.shutdown()
        self.http.server_close()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server, killed at the end."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
