"""Two tiny worlds on disk, one per layout, and copies of them that a test may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.datasets.synthetic import SyntheticConfig, write_world

SMALL = {"videos_train": 2, "videos_val": 1, "frames": 4, "height": 48, "width": 64}


@pytest.fixture(scope="session")
def panoptic_world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("panoptic") / "world", SyntheticConfig(**SMALL))


@pytest.fixture(scope="session")
def instance_world(tmp_path_factory) -> Path:
    config = SyntheticConfig(**{**SMALL, "frames": 12}, preset="hard", layout="youtube_vis")
    return write_world(tmp_path_factory.mktemp("instance") / "world", config)


@pytest.fixture
def panoptic_copy(panoptic_world, tmp_path) -> Path:
    return Path(shutil.copytree(panoptic_world, tmp_path / "copy"))


@pytest.fixture
def instance_copy(instance_world, tmp_path) -> Path:
    return Path(shutil.copytree(instance_world, tmp_path / "copy"))
