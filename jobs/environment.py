"""Environment variables that are set for a while."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def variables(**values: str) -> Iterator[None]:
    """A block in which environment variables have these values."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def any_home() -> Iterator[None]:
    """A block in which there is a home folder: a user without one has the temporary folder.

    Containers run with numbers of users that no file lists, and some libraries ask for a home as they are imported.
    """
    if os.path.expanduser("~") != "~":
        yield
        return
    with variables(HOME=tempfile.gettempdir()):
        yield
