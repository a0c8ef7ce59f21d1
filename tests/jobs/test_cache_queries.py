"""Caching redoes only what is missing, keeps the test-time view beside augmented ones, and names what it must skip."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from jobs import cache_queries
from jobs.cache_queries import CacheShard, cache_folder
from jobs.models import open_system
from jobs.verb import guarded
from pipeline.clips import AugmentConfig, StoredVideoSource
from pipeline.errors import BadInput
from pipeline.foreign_files import own_json
from pipeline.query_cache import BLOBS, CachedClip, QueryCache, part_path
from pipeline.shards import ShardSet
from tests.runs import damage, here, inferred

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def cache_of(recipe) -> QueryCache:
    return QueryCache(cache_folder(recipe))


def test_a_lost_part_is_made_again_with_the_same_bytes_and_the_others_are_kept(finished_run, tmp_path):
    recipe = here(finished_run.copy(tmp_path / "run"))
    folder = cache_folder(recipe)
    kept = part_path(folder, 0)
    lost = part_path(folder, 1)
    content = lost.read_bytes()
    time = kept.stat().st_mtime_ns
    lost.unlink()
    lost.with_suffix(".json").unlink()      # the cure that a cut part's error gives
    cache_queries.main(recipe)
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == time


def test_the_cache_holds_what_the_segmenter_says(finished_run):
    """Cache then read equals compute, up to the cache's half precision."""
    recipe = finished_run.recipe
    system = open_system(finished_run.recipe, "near_online")
    shards = ShardSet(recipe.shards_of("train"))
    cache = cache_of(recipe)
    video = shards.videos[3]
    (clips,) = (cache.read(group) for group in cache.videos[video.video_id])
    first, prediction = next(system.clip_predictions(StoredVideoSource(shards, video)))
    assert np.allclose(clips[0].queries, prediction.queries[0], atol=2e-3, rtol=1e-3)
    frame, row, column = clips[0].pixel_positions.T.astype(int)
    assert np.allclose(clips[0].pixel_features, prediction.pixel_features[0][:, frame, row, column].T, atol=2e-3,
                       rtol=1e-3)
    assert clips[0].num_frames == first.valid


def test_augmented_views_stand_beside_an_unchanged_test_time_view(finished_run, tmp_path):
    plain = cache_of(finished_run.recipe)
    recipe = finished_run.copy(tmp_path / "run")
    recipe = replace(recipe, cache=replace(recipe.cache, views=3, augment=AugmentConfig(size=(64, 64))))
    parts = CacheShard(recipe=recipe)(split="train", shard=0, part=0)["parts"]
    views: dict[str, list[int]] = {}
    for video, view, _ in (group for part in parts for group in part["groups"]):
        views.setdefault(video, []).append(view)
    assert set(map(tuple, views.values())) == {(0, 1, 2)}
    cache_queries.finish_cache(cache_folder(recipe), cache_queries.cache_source(recipe), parts)
    cache = cache_of(recipe)
    for video in views:
        (expected,), (first, *augmented) = (
            [source.read(group) for group in source.videos[video]] for source in (plain, cache))
        assert all(same(a, b) for a, b in zip(expected, first, strict=True))
        assert not any(np.array_equal(first[0].queries, view[0].queries) for view in augmented)
        assert all(np.array_equal(first[0].tube_ids, view[0].tube_ids) for view in augmented)


def test_a_video_that_cannot_be_read_is_named_and_costs_no_other(finished_run, tmp_path):
    recipe = finished_run.copy(tmp_path / "run")
    for file in cache_folder(recipe).iterdir():
        file.unlink()
    shards = ShardSet(recipe.shards_of("train"))
    bad, *others = (video for video in shards.videos if video.shard == 0)
    tar = shards.folder / shards.manifest["shards"][0]["name"]
    whole = tar.read_bytes()
    damage(shards, bad)
    with pytest.raises(BadInput, match=bad.video_id):
        CacheShard(recipe=replace(recipe, strict=True))(split="train", shard=0, part=0)
    (summary,) = CacheShard(recipe=recipe)(split="train", shard=0, part=0)["parts"]
    assert [(row["video"], row["reason"]) for row in summary["skipped"]] == [(bad.video_id, "corrupt-image")]
    assert [video for video, *_ in summary["groups"]] == [video.video_id for video in others]
    # Run again, the finished part still says whom it lacks; once the shard is whole, it lacks nobody.
    (again,) = CacheShard(recipe=recipe)(split="train", shard=0, part=0)["parts"]
    assert plain(again) == plain(summary)
    tar.write_bytes(whole)
    (repaired,) = CacheShard(recipe=recipe)(split="train", shard=0, part=0)["parts"]
    assert repaired["skipped"] == []
    assert [video for video, *_ in repaired["groups"]] == [bad.video_id, *(video.video_id for video in others)]


def test_a_set_of_which_nothing_can_be_cached_is_a_data_error(finished_run, tmp_path, capsys):
    recipe = finished_run.copy(tmp_path / "run")
    for file in cache_folder(recipe).iterdir():
        file.unlink()
    shards = ShardSet(recipe.shards_of("train"))
    for video in shards.videos:
        damage(shards, video)
    assert guarded(cache_queries.main, lambda: here(recipe)) == 3
    assert "none of 12 videos could be read; the first: video 'train_00000'" in capsys.readouterr().err
    assert not (cache_folder(recipe) / "manifest.json").exists()


def test_a_segmenter_of_other_classes_is_refused_before_any_worker_starts(finished_run, tmp_path):
    recipe = finished_run.copy(tmp_path / "run")
    path = recipe.segmenter_folder / "model.json"
    card = own_json(path, cure="")
    card["classes"]["classes"].reverse()
    path.write_text(json.dumps(card))
    with pytest.raises(ValueError, match="use shards of the same data set"):
        cache_queries.main(recipe)


def plain(summary: dict) -> dict:
    return json.loads(json.dumps(summary))


def same(a: CachedClip, b: CachedClip) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in (*BLOBS, "tube_areas", "start_frame"))


def test_clips_of_another_length_have_another_cache(finished_run):
    recipe = finished_run.recipe
    assert cache_folder(inferred(recipe, clip_frames=2)) == cache_folder(recipe)      # as in training
    assert cache_folder(inferred(recipe, clip_frames=3)) != cache_folder(recipe)
