"""Tests of this folder that are slow or start Ray are a suite of their own, `make machines`, not of `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)     # before pytest chooses by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and (item.get_closest_marker("slow") or item.get_closest_marker("ray")):
            item.add_marker("machines")
