"""The verb skips and counts bad videos by reason, or stops at the first one under --strict."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from jobs import make_shards
from jobs.recipes.schema import Recipe
from jobs.verb import guarded
from pipeline.datasets import DatasetConfig
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.images import encode_jpeg
from pipeline.shards import ShardSet
from tests.runs import tiny_run

pytestmark = pytest.mark.ray


@pytest.fixture
def damaged(tmp_path) -> Recipe:
    """Four training videos, one with a picture of another size and one without a label."""
    small = SyntheticConfig(videos_train=4, videos_val=1, frames=3, height=48, width=64)
    world = write_world(tmp_path / "world", small)
    recipe = tiny_run(tmp_path / "run", world=None, dataset=DatasetConfig(name="vipseg", root=str(world)))
    first, second, *_ = sorted(path for path in (world / "images").iterdir() if path.name.startswith("train"))
    picture = sorted(first.iterdir())[1]
    picture.write_bytes(encode_jpeg(np.zeros((24, 32, 3), np.uint8)))
    sorted((world / "panomasksRGB" / second.name).iterdir())[0].unlink()
    return recipe


def test_bad_videos_are_skipped_counted_by_reason_and_named_with_a_cure(cluster, damaged, capsys):
    summary = make_shards.main(damaged)
    assert summary["train"]["skipped"] == {"size-differs": 1}
    assert (summary["train"]["videos"], summary["val"]["skipped"]) == (3, {})
    errors = [json.loads(line) for line in (damaged.shards_of("train") / "errors.jsonl").read_text().splitlines()]
    assert sorted(error["reason"] for error in errors) == ["missing-label", "size-differs"]
    assert all(error["video"] in error["message"] for error in errors)
    assert len(ShardSet(damaged.shards_of("train")).videos) == 3
    assert "errors.jsonl" in capsys.readouterr().out


def test_strict_stops_with_the_data_exit_code_and_names_video_and_file(cluster, damaged, capsys):
    assert guarded(make_shards.main, lambda: replace(damaged, strict=True)) == 3
    printed = capsys.readouterr().err
    assert "error: video 'train_0000" in printed
    assert "file " in printed


def test_a_data_set_that_is_not_there_names_the_folder_before_ray_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_shards, "connect", lambda cluster: pytest.fail("Ray was started"))
    recipe = tiny_run(tmp_path / "run", world=None, dataset=DatasetConfig(name="vipseg", root=str(tmp_path / "none")))
    assert guarded(make_shards.main, lambda: recipe) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
