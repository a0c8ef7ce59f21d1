"""The numbers about a cache are those of the clips that were written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.query_cache import CacheWriter, QueryCache, contents, fingerprint, finish_cache
from tests.pipeline.query_cache.test_cache import CLASSES, SOURCE, C, N, P, clip


def sure_of(*queries: int) -> np.ndarray:
    """Class logits n classes+1: only these queries are sure of an object."""
    logits = np.zeros((N, CLASSES + 1), np.float16)
    logits[:, -1] = 5
    logits[list(queries), 0] = 9
    return logits


@pytest.fixture
def cache(tmp_path) -> QueryCache:
    """Video a: two views of three clips. Video b: one view of one clip."""
    writer = CacheWriter(tmp_path, 0, dtype="float16", fingerprint=fingerprint(SOURCE))
    for view in (0, 1):
        writer.add([replace(clip("a", index, view=view), class_logits=sure_of(0, index)) for index in range(3)])
    writer.add([replace(clip("b", 0), class_logits=sure_of(4))])
    finish_cache(tmp_path, SOURCE, [writer.close()])
    return QueryCache(tmp_path)


def test_clips_views_and_objects_are_counted(cache):
    inside = contents(cache)
    assert (inside.videos, inside.views, inside.clips) == (2, {0: 2, 1: 1}, 7)
    assert (inside.clips_of_a_video.lowest, inside.clips_of_a_video.highest) == (1, 3)
    visible = [1, 2, 2, 1, 2, 2, 1]     # the second tube has no pixel in the first clip, the third in none
    assert (inside.objects.mean, inside.objects.lowest, inside.objects.highest) == (np.mean(visible), 1, 2)


def test_queries_count_as_used_if_they_are_sure_in_one_clip_of_the_video(cache):
    inside = contents(cache)
    assert (inside.queries, inside.used.mean, inside.used.lowest, inside.used.highest) == (N, 7 / 3, 1, 3)
    assert inside.idle == (3 * 2 + 3 * 2 + 1 * 4) / (7 * N)


def test_every_column_has_its_type_and_bytes_and_tensors_are_stored_once(cache):
    columns = {column.name: column for column in contents(cache).columns}
    assert columns["queries"].kind == f"float16 {N} x {C}"
    assert columns["pixel_positions"].kind == f"int16 {P} x 3"
    assert 7 * N * C * 2 < columns["queries"].bytes < 7 * N * C * 2 + 3 * 60
    assert sum(column.bytes for column in columns.values()) < contents(cache).bytes


def test_a_cache_without_clips_is_refused_with_the_cure(tmp_path):
    writer = CacheWriter(tmp_path, 0, dtype="float16", fingerprint=fingerprint(SOURCE))
    finish_cache(tmp_path, SOURCE, [writer.close()])
    with pytest.raises(ValueError, match=r"holds no clip.*jobs\.cache_queries"):
        contents(QueryCache(tmp_path))
