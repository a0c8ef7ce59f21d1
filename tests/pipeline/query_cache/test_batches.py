"""2000 windows of stage two against the official rules: which videos, views and clips are drawn."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from jobs.config import override
from jobs.recipes import find_recipe
from jobs.train_stage_two import opening_lines
from pipeline.query_cache.batches import QueryInputConfig, drawn_videos, query_batches
from pipeline.query_cache.cache import CachedClip, CacheWriter, QueryCache, fingerprint, finish_cache
from tests.pipeline.query_cache.test_cache import SOURCE, clip

DRAWS = 2000
CLIP_FRAMES = SOURCE["clip_frames"]


def view_of(video: str, frames: int, *, view: int, start: int, clip_frames: int = CLIP_FRAMES) -> list[CachedClip]:
    """The clips of a view, cut from `start` on; the last one may repeat its last frame. Its queries are its frame."""
    rows = []
    for index, first in enumerate(range(start, frames, clip_frames)):
        row = clip(video, index, view=view)
        rows.append(CachedClip(**{name: getattr(row, name) for name in CachedClip.__slots__} | {
            "start_frame": first, "num_frames": min(clip_frames, frames - first),
            "queries": np.full_like(row.queries, first), "class_logits": np.full_like(row.class_logits, view)}))
    return rows


def write(folder: Path, views: dict[str, list[list[CachedClip]]], *, clip_frames: int = CLIP_FRAMES) -> QueryCache:
    source = {**SOURCE, "clip_frames": clip_frames}
    writer = CacheWriter(folder, 0, dtype="float16", fingerprint=fingerprint(source))
    for video in views.values():
        for view in video:
            writer.add(view)
    finish_cache(folder, source, [writer.close()])
    return QueryCache(folder, expected=source)


def draws(cache: QueryCache, config: QueryInputConfig) -> list[tuple[str, int, list[int]]]:
    """Video, view and frames of the clips of 2000 windows."""
    batches = islice(query_batches(cache, config), DRAWS // config.batch_size)
    return [(video, int(logits[0, 0, 0]), queries[:, 0, 0].int().tolist()) for batch in batches
            for video, logits, queries in zip(batch.videos, batch.queries.class_logits, batch.queries.queries)]


def close(hits: list[bool], probability: float) -> bool:
    """Whether a share of the draws is within four standard deviations of what the rule says."""
    return abs(np.mean(hits) - probability) <= 4 * (probability * (1 - probability) / len(hits)) ** 0.5


@pytest.fixture(scope="module")
def lengths() -> dict[str, int]:
    return {"a": 9, "b": 8, "c": 12, "short": 7, "long": 20}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, lengths) -> QueryCache:
    """A test-time view, and one augmented view for every frame at which four clips can begin; all in one part."""
    return write(tmp_path_factory.mktemp("cache"), {video: [
        view_of(video, frames, view=0, start=0),
        *(view_of(video, frames, view=1 + start, start=start % CLIP_FRAMES) for start in range(max(frames - 7, 1)))]
        for video, frames in lengths.items()})


def test_every_full_window_of_frames_is_equally_likely_and_short_videos_are_never_drawn(cache, lengths):
    """Official for YouTube-VIS: a data set of all key frames with a full window behind them."""
    config = QueryInputConfig(clips=4, batch_size=4, reverse=0.0, sampling="windows", test_view=False)
    windows = draws(cache, config)
    possible = [(video, start) for video, frames in lengths.items() for start in range(frames - 8 + 1)]
    seen = [(video, frames[0]) for video, _, frames in windows]
    assert set(seen) == set(possible)
    for window in possible:
        assert close([window == one for one in seen], 1 / len(possible))
    assert all(frames == list(range(frames[0], frames[0] + 8, 2)) for *_, frames in windows)
    drawn = drawn_videos(cache, config)
    assert len(drawn) == 4
    assert {cache.groups.video(view) for view in drawn.views.tolist()} == cache.videos.keys() - {"short"}


@pytest.mark.parametrize("config", [
    QueryInputConfig(clips=4), QueryInputConfig(clips=4, test_view=False),
    QueryInputConfig(clips=4, sampling="windows"),
    QueryInputConfig(clips=4, sampling="windows", test_view=False), QueryInputConfig(clips=1, sampling="windows")])
def test_the_samples_are_those_of_the_plain_formula(cache, lengths, config):
    """A list with the views of a video once for each of its windows. This order must never change."""
    expected = []
    for video in sorted(lengths):
        groups = [group for group, (name, view, *_) in enumerate(cache.groups)
                  if name == video and (config.test_view or view > 0)]
        full = [group for group in groups if sum(
            clip.num_frames == CLIP_FRAMES for clip in cache.read(group)) >= config.clips]
        if config.sampling == "videos":
            expected.append(groups)
        elif full:
            ends = [cache.read(group)[-1].start_frame + cache.read(group)[-1].num_frames for group in full]
            expected += [full] * (max(ends) - config.clips * CLIP_FRAMES + 1)
    drawn = drawn_videos(cache, config)
    assert [drawn.views_of(sample).tolist() for sample in range(drawn.samples)] == expected


def test_the_number_of_videos_left_out_is_said(cache):
    recipe = override(find_recipe("tiny"), ["stage_two.input.clips=4"])
    (line,) = opening_lines(recipe, cache)
    assert "5 videos, " in line
    recipe = override(recipe, ["stage_two.input.sampling=windows"])
    assert list(opening_lines(recipe, cache)) == [
        line, "videos never drawn, since no view of them fills a window of 4 clips: 1"]


def test_by_videos_every_video_and_view_is_equally_likely(cache, lengths):
    """Official for VIPSeg: one window of each video in an epoch."""
    for test_view in (True, False):
        windows = draws(cache, QueryInputConfig(clips=4, batch_size=4, reverse=0.0, test_view=test_view))
        for video in lengths:
            assert close([video == one for one, *_ in windows], 1 / len(lengths))
        views = [view for video, view, _ in windows if video == "c"]
        possible = range(0 if test_view else 1, 6)
        assert set(views) == set(possible)
        assert all(close([view == one for one in views], 1 / len(possible)) for view in possible)


def test_frames_around_one_are_those_of_the_released_mapper_of_vita(tmp_path):
    """Official: a frame, then others with replacement among its neighbours within reach, in the order of time."""
    frames = 30
    cache = write(tmp_path, {"a": [view_of("a", frames, view=0, start=0, clip_frames=1)]}, clip_frames=1)
    config = QueryInputConfig(clips=5, batch_size=1, reverse=0.0, reach=8)
    ours = np.array([window for *_, window in draws(cache, config)])
    rng = np.random.default_rng(0)
    official = []
    for _ in range(DRAWS):
        key = rng.integers(frames)
        near = [frame for frame in range(max(0, key - 8), min(frames, key + 9)) if frame != key]
        official.append(sorted([key, *rng.choice(near, 4)]))
    official = np.array(official)
    assert (np.diff(ours) >= 0).all()
    for statistic in (lambda rows: rows[:, 4] - rows[:, 0], lambda rows: rows[:, 0], lambda rows: rows[:, 2],
                      lambda rows: (np.diff(rows) == 0).sum(1)):
        a = statistic(ours)
        b = statistic(official)
        assert abs(a.mean() - b.mean()) < 4 * ((a.var() + b.var()) / DRAWS) ** 0.5


def test_fewer_videos_than_windows_in_a_batch_fill_it(tmp_path):
    cache = write(tmp_path, {"a": [view_of("a", 9, view=0, start=0)], "b": [view_of("b", 9, view=0, start=0)]})
    batch = next(query_batches(cache, QueryInputConfig(clips=3, batch_size=5)))
    assert set(batch.videos) == {"a", "b"}
    assert len(batch.videos) == 5


def test_where_no_video_fills_a_window_the_cure_is_named(cache):
    with pytest.raises(ValueError, match=r"all 5 videos are shorter .* 11 clips, 22 frames; set a smaller "
                                         r"stage_two\.input\.clips"):
        next(query_batches(cache, QueryInputConfig(clips=11, batch_size=1, sampling="windows")))


def test_a_cache_without_augmented_views_is_refused_where_only_they_are_drawn(tmp_path):
    cache = write(tmp_path, {"a": [view_of("a", 9, view=0, start=0)]})
    with pytest.raises(ValueError, match=r"no augmented view; set cache\.views to 2"):
        next(query_batches(cache, QueryInputConfig(batch_size=1, test_view=False)))


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="set reach=0 or sampling=videos"):
        QueryInputConfig(reach=3, sampling="windows")
    with pytest.raises(ValueError, match=r"reach is -1"):
        QueryInputConfig(reach=-1)


@pytest.mark.parametrize("changes", [{}, {"reach": 1}, {"sampling": "windows"}, {"clips": 6}], ids=str)
def test_a_window_holds_a_clip_with_a_label_where_the_view_has_any(tmp_path, changes):
    """Every third clip of `a` shows a labelled frame, and no clip of `b` does, as where a view begins after it."""
    def row(clip: CachedClip, keep: bool) -> CachedClip:
        return replace(clip, pixel_weights=clip.pixel_weights * keep, tube_areas=clip.tube_areas * keep)

    views = {video: [[row(clip, video == "a" and index % 3 == 1) for index, clip in
                      enumerate(view_of(video, 11 * CLIP_FRAMES, view=0, start=0))]] for video in "ab"}
    config = QueryInputConfig(**{"clips": 2, "batch_size": 1, "reverse": 0.0, **changes})
    starts = set()
    for batch in islice(query_batches(write(tmp_path, views), config), 300):
        assert batch.evidence.weights.any() == (batch.videos == ("a",))
        starts.add((*batch.videos, int(batch.queries.queries[0, 0, 0, 0]) // CLIP_FRAMES))
    last = 11 - config.clips
    labelled = {start for start in range(last + 1) if any(clip % 3 == 1 for clip in range(start, start + config.clips))}
    if not config.reach:
        assert {start for video, start in starts if video == "a"} == labelled
        assert {start for video, start in starts if video == "b"} == set(range(last + 1))
