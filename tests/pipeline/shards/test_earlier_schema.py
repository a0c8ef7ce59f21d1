"""A set of schema 2 is read, and is completed and repaired to the bytes that it had.

`schema_2/` is the set that commit de4c08f made of `LENGTHS`. Its id maps were encoded by OpenCV.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from pipeline.shards import ShardConfig, ShardSet, make_shards, verify
from pipeline.shards.format import SCHEMA
from pipeline.shards.index import write_index
from tests.pipeline.shards.toy_videos import ToyVideos, toy_videos

STORED = Path(__file__).parent / "schema_2"
LENGTHS = {"a": 3, "b": 2}
CONFIG = ShardConfig(clip_frames=2, min_shards=2)


@pytest.fixture
def data(tmp_path) -> ToyVideos:
    return toy_videos(tmp_path / "toy", LENGTHS)


@pytest.fixture
def earlier(tmp_path) -> Path:
    return shutil.copytree(STORED, tmp_path / "earlier")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_both_schemas_hold_the_same_frames_and_ids(data, earlier, tmp_path):
    make_shards(data, tmp_path / "new", CONFIG, split="train")
    old, new = ShardSet(earlier), ShardSet(tmp_path / "new")
    assert (old.manifest["schema"], new.manifest["schema"]) == (2, SCHEMA)
    assert verify(earlier) == verify(tmp_path / "new") == []
    for before, after in zip(old.videos, new.videos, strict=True):
        count = len(before.frames)
        assert [jpeg for jpeg, _ in old.read(before, 0, count)] == [jpeg for jpeg, _ in new.read(after, 0, count)]
        assert before.segments == after.segments
        for frame in range(count):
            assert_array_equal(old.ids(before, frame), new.ids(after, frame))


@pytest.mark.parametrize("lost", [
    ["train-000001.tar"], ["manifest.json", "train-000000.json"], ["plan.json", "train-000001.tar"],
    ["plan.json", "manifest.json", "index.arrow", "train-000000.json", "train-000000.tar"]], ids=",".join)
def test_a_set_that_an_earlier_version_began_ends_with_its_bytes(data, earlier, lost):
    for name in lost:
        (earlier / name).unlink()
    make_shards(data, earlier, CONFIG, split="train")
    assert contents(earlier) == contents(STORED)


def test_its_index_is_rebuilt_byte_for_byte(earlier):
    (earlier / "index.arrow").unlink()
    write_index(earlier)
    assert contents(earlier) == contents(STORED)
