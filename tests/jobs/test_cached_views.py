"""A cache of more views contains that of fewer; what is drawn depends on seed, view and video alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from jobs import train_stage_two
from jobs.cache_queries import CacheShard, cache_folder, expected_size
from jobs.config import override
from jobs.recipes.schema import Recipe
from jobs.verb import guarded
from pipeline.query_cache import BLOBS, CachedClip, QueryCache, part_path, verify_cache
from pipeline.shards import ShardSet
from tests.cached_run import cached, sharded_run

PASTING = ("cache.copy_paste={}", "cache.window_frames=6")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Recipe:
    """The recipe `tiny` on four videos, with an untrained segmenter."""
    return sharded_run(tmp_path_factory.mktemp("run"))


def same(a: CachedClip, b: CachedClip) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in (
        *BLOBS, "tube_ids", "tube_classes", "tube_areas", "start_frame", "num_frames"))


def files(cache: QueryCache) -> dict[str, Path]:
    return {part["file"]: cache.folder / part["file"] for part in cache.manifest["parts"]}


def test_more_views_keep_the_files_of_fewer_and_the_test_time_view_is_that_of_any_settings(run):
    one = files(cached(run))
    two = files(cached(run, "cache.views=2", *PASTING))
    four = files(cached(run, "cache.views=4", *PASTING))
    plain = files(cached(run, "cache.views=2"))
    assert set(one) < set(two) < set(four)
    for smaller, larger in ((one, two), (two, four), (one, plain)):
        for name, path in smaller.items():
            assert path.stat().st_ino == larger[name].stat().st_ino
            assert path.parent != larger[name].parent
    for name in set(two) - set(one):
        assert two[name].read_bytes() != plain[name].read_bytes()       # other draws


def test_a_further_split_keeps_the_files_of_the_others(run):
    """New videos are a further split: the bytes of what is there stay, and the videos of both are drawn."""
    one = cached(run, "cache.views=2", *PASTING)
    before = {name: path.read_bytes() for name, path in files(one).items()}
    both = cached(run, "cache.views=2", "cache.splits=[\"train\", \"val\"]", *PASTING)
    assert both.folder != one.folder
    assert set(files(one)) < set(files(both))
    for name, content in before.items():
        assert files(one)[name].read_bytes() == content
        assert files(both)[name].stat().st_ino == files(one)[name].stat().st_ino
    assert set(both.videos) - set(one.videos) == {video.video_id for video in ShardSet(run.shards_of("val")).videos}
    assert verify_cache(both.folder, expected=both.manifest["made_from"]) == []


def test_clips_that_share_a_batch_are_cached_as_those_that_are_alone(run, tmp_path):
    settings = ("cache.views=2", *PASTING)
    alone = cached(run, *settings)
    together = cached(sharded_run(tmp_path), *settings, "inference.clips_together=3")
    assert [group[:2] for group in together.groups] == [group[:2] for group in alone.groups]
    for group in range(len(alone.groups)):
        for one, other in zip(alone.read(group), together.read(group), strict=True):
            for name in ("pixel_positions", "tube_ids", "tube_areas", "start_frame"):
                assert np.array_equal(getattr(one, name), getattr(other, name))
            for name in ("queries", "mask_embeddings", "class_logits", "pixel_features"):
                np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-2, atol=1e-2)


def test_a_view_is_the_same_whatever_else_is_cached(run, tmp_path):
    """Made alone in another folder, in any order, it has the same bytes."""
    whole = files(cached(run, "cache.views=3", *PASTING))
    recipe = override(run, ["cache.views=3", *PASTING])
    shards = ShardSet(recipe.shards_of("train"))
    actor = CacheShard(recipe=recipe)
    part = part_path(cache_folder(recipe), 1, 2)
    content = part.read_bytes()
    for path in (part, part.with_suffix(".json")):
        path.rename(tmp_path / path.name)
    actor.part(shards, 1, 1, 2, split="train")
    assert whole[part.name].read_bytes() == content


def test_augmented_clips_may_begin_at_any_frame_and_the_test_time_view_begins_at_the_first(run):
    cache = cached(run, "cache.views=6", "cache.window_frames=6")
    starts = {(view > 0, cache.read(group)[0].start_frame) for group, (_, view, *_) in enumerate(cache.groups)}
    assert starts == {(False, 0), (True, 0), (True, 1)}
    frames = {video.video_id: len(video.frames) for video in ShardSet(run.shards_of("train")).videos}
    for group, (video, *_) in enumerate(cache.groups):
        clips = cache.read(group)
        assert [clip.start_frame for clip in clips] == list(range(clips[0].start_frame, frames[video], 2))


def test_pasted_objects_are_tubes_of_the_augmented_views_alone(run):
    cache = cached(run, "cache.views=3", *PASTING)
    shards = ShardSet(run.shards_of("train"))
    known = {video.video_id: video.highest_id for video in shards.videos}
    pasted = {True: 0, False: 0}
    for group, (video, view, *_) in enumerate(cache.groups):
        clips = cache.read(group)
        new = clips[0].tube_ids > known[video]
        pasted[view > 0] += int(sum(clip.tube_areas for clip in clips)[new].sum())
        for clip in clips:
            for tube in np.flatnonzero(new & (clip.tube_areas > 0)):
                assert clip.pixel_weights[clip.pixel_tubes == tube].sum() == pytest.approx(clip.tube_areas[tube])
    assert pasted[True] > 0
    assert pasted[False] == 0


def test_a_part_that_lacks_a_video_is_not_taken_over(run):
    """What was skipped in one cache may have been repaired when the next one is made."""
    first = cached(run, "cache.views=2", "cache.seed=5")
    path = part_path(first.folder, 0, 1)
    sidecar = path.with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"skipped":[]', '"skipped":[{"video":"x"}]'))
    assert '"x"' in sidecar.read_text()
    second = cached(run, "cache.views=3", "cache.seed=5")
    assert files(second)[path.name].stat().st_ino != path.stat().st_ino
    assert files(second)[path.name].read_bytes() == path.read_bytes()
    unchanged = part_path(second.folder, 0, 0)
    assert unchanged.stat().st_ino == part_path(first.folder, 0, 0).stat().st_ino


def test_where_no_video_fills_a_window_training_ends_before_it_begins(run, capsys):
    settings = ("stage_two.input.sampling=windows", "stage_two.input.clips=9", "cluster.in_process=true")
    cached(run, *settings)
    assert guarded(train_stage_two.main, lambda: override(run, settings)) == 2
    assert "all 4 videos are shorter than a window of 9 clips, 18 frames" in capsys.readouterr().err
    assert not (run.run_folder / "stage_two").exists()


@pytest.mark.parametrize("settings", [(), ("cache.evidence.strategy=dense", "cache.dtype=float32"),
                                      ("cache.views=3", "cache.evidence.pixels=200"),
                                      ("cache.features_in_8_bits=true", "cache.dtype=float32")])
def test_the_size_that_is_said_before_caching_is_that_of_the_cache(run, settings):
    recipe = override(run, settings)
    [line] = expected_size(recipe, [ShardSet(run.shards_of("train")).videos])
    [numbers] = re.findall(r"caching (\S+) .*about (\S+) kB", line)
    clips, kilobytes = (float(number.replace(",", "")) for number in numbers)
    totals = cached(run, *settings).manifest["totals"]
    assert clips == totals["clips"]
    assert kilobytes * 1000 == pytest.approx(totals["bytes"] / totals["clips"], rel=0.05)
