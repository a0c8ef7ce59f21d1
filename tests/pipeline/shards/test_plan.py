"""The plan divides the sorted videos into shards before anything is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.shards.plan import ShardConfig, plan_shards
from tests.pipeline.shards.toy_videos import ToyVideos, toy_videos


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> ToyVideos:
    return toy_videos(tmp_path_factory.mktemp("toy"), {f"video{index}": 2 for index in range(7)})


@pytest.mark.parametrize("config", [ShardConfig(), ShardConfig(min_shards=3), ShardConfig(min_shards=99),
                                    ShardConfig(shard_megabytes=0.004)])
def test_every_video_is_in_one_shard_in_order(data, config):
    plan = plan_shards(data, config, split="train")
    assert [video for shard in plan.shards for video in shard] == data.video_ids()
    assert all(plan.shards)
    assert min(config.min_shards, 7) <= len(plan.shards) <= 7


def test_shards_have_about_the_requested_size(data):
    megabytes = sum(path.stat().st_size for path in data.root.rglob("*.*")) / 1e6
    plan = plan_shards(data, ShardConfig(shard_megabytes=megabytes / 3.5), split="train")
    assert len(plan.shards) == 4
    smaller = ShardConfig(shard_megabytes=megabytes / 3.5, resize_height=12)
    assert len(plan_shards(data, smaller, split="train").shards) == 1


def test_the_digest_depends_on_the_videos_and_the_settings(data):
    plan = plan_shards(data, ShardConfig(), split="train")
    fewer = replace(data, lengths={"video1": 2})
    others = [plan_shards(data, ShardConfig(clip_frames=4), split="train"),
              plan_shards(fewer, ShardConfig(), split="train"), plan_shards(data, ShardConfig(), split="val")]
    assert len({plan.digest, *(other.digest for other in others)}) == 4
    assert plan.digest == plan_shards(data, ShardConfig(), split="train").digest


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lists no videos"):
        plan_shards(ToyVideos(tmp_path, {}), ShardConfig(), split="train")


@pytest.mark.parametrize("field", ["clip_frames", "min_shards", "jpeg_quality", "resize_height", "shard_megabytes"])
def test_a_setting_that_cannot_work_is_refused_by_name(field):
    with pytest.raises(ValueError, match=field):
        ShardConfig(**{field: 0})


@pytest.mark.parametrize(("size", "stored"), [((1080, 1920), (720, 1280)), ((1920, 1080), (720, 405)),
                                              ((480, 853), (720, 1279)), ((720, 1280), (720, 1280))])
def test_resizing_to_720p_fixes_the_height_of_upright_videos_too(size, stored):
    assert ShardConfig(resize_height=720).stored_size(*size) == stored
