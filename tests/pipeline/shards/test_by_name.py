"""Videos are found by their ids, and only those that are asked for become objects."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.shards import ShardConfig, ShardSet, StoredVideos, VideosByName, make_shards
from tests.pipeline.shards.toy_videos import toy_videos


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    data = toy_videos(tmp_path_factory.mktemp("toy"), {"a": 10, "B.mov": 1, "c": 5})
    folder = tmp_path_factory.mktemp("shards") / "out"
    make_shards(data, folder, ShardConfig(clip_frames=4, min_shards=2), split="val")
    return ShardSet(folder)


def test_every_video_has_its_name(shards):
    named = VideosByName(shards.videos)
    assert dict(named) == {video.video_id: video for video in shards.videos}
    assert len(named) == 3
    assert "d" not in named
    with pytest.raises(KeyError, match="d"):
        _ = named["d"]


def test_of_some_videos_only_those_have_names(shards):
    some = shards.videos.chosen(np.array([False, True, True]))
    assert dict(VideosByName(some)) == {video.video_id: video for video in some}


def test_only_the_videos_that_are_asked_for_are_made(shards, monkeypatch):
    made = []
    get = StoredVideos.__getitem__
    monkeypatch.setattr(StoredVideos, "__getitem__", lambda videos, place: made.append(place) or get(videos, place))
    named = VideosByName(shards.videos)
    assert "c" in named
    assert sorted(named) == ["B.mov", "a", "c"]
    assert made == []
    assert named["c"].video_id == "c"
    assert len(made) == 1
