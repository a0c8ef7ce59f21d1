"""The folders of inputs as people bring them, where a checkout has them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def own_data(real_data) -> Path:
    """Folders with one oddity each; its README says what is right."""
    return real_data / "own_data"
