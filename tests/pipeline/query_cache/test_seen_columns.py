"""The columns `places` and `looks` of the query cache: written, read, turned in time, and absent in old caches."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.query_cache.batches import QueryInputConfig, query_batches
from pipeline.query_cache.cache import (
    SEEN,
    CachedClip,
    CacheWriter,
    QueryCache,
    fingerprint,
    finish_cache,
    refuse_missing_columns,
)
from tests.pipeline.query_cache.test_cache import SOURCE, N, clip

CLIPS = 4
FRAMES = SOURCE["clip_frames"]


def seen_clip(video: str, index: int) -> CachedClip:
    """Its places hold the number of the frame."""
    frames = np.arange(index * FRAMES, (index + 1) * FRAMES, dtype=np.float16)
    places = np.broadcast_to(frames[:, None], (N, FRAMES, 5)).copy()
    return replace(clip(video, index), places=places, looks=np.full((N, 6), index, np.float16))


def write(folder, make) -> QueryCache:
    writer = CacheWriter(folder, 0, dtype="float32", fingerprint=fingerprint(SOURCE))
    for video in "ab":
        writer.add([make(video, index) for index in range(CLIPS)])
    finish_cache(folder, SOURCE, [writer.close()])
    return QueryCache(folder, expected=SOURCE)


def windows(cache: QueryCache, **settings):
    return islice(query_batches(cache, QueryInputConfig(clips=CLIPS, batch_size=2, **settings)), 8)


def test_they_are_stored_in_half_precision_whatever_the_cache_has(tmp_path):
    cache = write(tmp_path, seen_clip)
    for index, row in enumerate(cache.read(1)):
        expected = seen_clip("b", index)
        assert row.places.dtype == row.looks.dtype == np.float16
        assert row.queries.dtype == np.float32
        np.testing.assert_array_equal(row.places, expected.places)
        np.testing.assert_array_equal(row.looks, expected.looks)


@pytest.mark.parametrize("reach", [0, 2])
def test_a_window_that_is_read_backwards_has_its_frames_backwards(tmp_path, reach):
    directions = set()
    for batch in windows(write(tmp_path, seen_clip), reach=reach):
        frames = batch.queries.places[:, :, 0, :, 0]                            # b k t
        for window in frames.flatten(1).diff(dim=1).sign():
            assert len(set(window.tolist()) - {0}) <= 2                         # clips may repeat with a reach
            step = window[0]                                                    # inside the first clip
            assert (window[::2] == step).all()
            directions.add(int(step))
    assert directions == {-1, 1}


def test_a_cache_without_them_is_read_as_before(tmp_path):
    cache = write(tmp_path, clip)
    names = pq.ParquetFile(next(tmp_path.glob("*.parquet"))).schema_arrow.names
    assert not set(SEEN) & set(names)
    batch = next(windows(cache))
    assert batch.queries.places is None
    assert batch.queries.looks is None
    assert batch.queries.queries.shape[:2] == (2, CLIPS)


def test_links_refuse_a_cache_without_them_and_name_part_and_cure(tmp_path):
    cache = write(tmp_path, clip)
    with pytest.raises(ValueError, match=r"queries-000000\.parquet.*places and looks.*jobs\.cache_queries"):
        refuse_missing_columns(cache)
    refuse_missing_columns(write(tmp_path / "new", seen_clip))


def test_a_part_without_them_is_finished_for_everyone_but_links(tmp_path):
    settings = {"dtype": "float32", "fingerprint": fingerprint(SOURCE)}
    write(tmp_path / "old", clip)
    assert CacheWriter(tmp_path / "old", 0, **settings).finished() is not None
    assert CacheWriter(tmp_path / "old", 0, **settings, columns=SEEN).finished() is None
    write(tmp_path / "new", seen_clip)
    assert CacheWriter(tmp_path / "new", 0, **settings, columns=SEEN).finished() is not None
