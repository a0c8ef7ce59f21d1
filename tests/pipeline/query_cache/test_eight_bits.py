"""Pixel features in 8 bits: as near as a step allows, marked by a format of its own, and read like any others."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from pipeline.query_cache import CacheWriter, QueryCache, fingerprint, finish_cache, verify_cache
from pipeline.query_cache.columns import as_8_bits
from tests.pipeline.query_cache.test_cache import SOURCE, D, P, clip, same

EIGHT = {**SOURCE, "cache": {"features_in_8_bits": True}}


def write(folder, source: dict, *clips) -> QueryCache:
    writer = CacheWriter(folder, 0, dtype="float16", fingerprint=fingerprint(source), in_8_bits=source is EIGHT)
    writer.add(list(clips))
    finish_cache(folder, source, [writer.close()])
    return QueryCache(folder, expected=source)


@given(drawn.arrays(np.float32, (3, 16), elements=st.floats(-100, 100, width=32)))
@settings(max_examples=200, deadline=None)
def test_every_value_is_off_by_at_most_a_step(values):
    steps, scales = as_8_bits(values)
    assert (steps.dtype, scales.dtype) == (np.int8, np.float16)
    restored = steps * scales[:, None].astype(np.float32)
    largest = np.abs(values).max(1, keepdims=True)
    half_a_step = largest / 127 / 2
    rounding_of_the_factor = largest / 1000
    assert (np.abs(restored - values) <= half_a_step + rounding_of_the_factor + 1e-5).all()


def test_a_cache_in_8_bits_is_read_like_any_other_but_for_the_pixel_features(tmp_path):
    rows = [clip("a", 0), replace(clip("a", 1), pixel_features=np.zeros((P, D), np.float16))]
    plain = write(tmp_path / "plain", SOURCE, *rows)
    small = write(tmp_path / "small", EIGHT, *rows)
    assert verify_cache(small.folder, expected=EIGHT) == []
    for one, other in zip(plain.read(0), small.read(0), strict=True):
        assert same(one, replace(other, pixel_features=one.pixel_features))
        step = np.abs(one.pixel_features).max() / 127
        np.testing.assert_allclose(other.pixel_features, one.pixel_features, atol=step)
    assert (small.read(0)[1].pixel_features == 0).all()


def test_its_format_is_one_that_earlier_versions_refuse(tmp_path):
    formats = [json.loads((write(tmp_path / name, source, clip("a", 0)).folder / "manifest.json").read_text())["schema"]
               for name, source in (("plain", SOURCE), ("small", EIGHT))]
    assert formats == [4, 4]


def test_a_changed_factor_is_found_by_the_checksum(tmp_path):
    cache = write(tmp_path, EIGHT, clip("a", 0))
    _, scales = as_8_bits(clip("a", 0).pixel_features)
    path = tmp_path / "queries-000000.parquet"
    content = path.read_bytes()
    assert content.count(scales.tobytes()) == 1
    path.write_bytes(content.replace(scales.tobytes(), (scales * 2).tobytes()))
    assert any("clip 0 does not match its checksum" in finding for finding in verify_cache(cache.folder))


def test_a_value_that_is_not_finite_is_refused(tmp_path):
    writer = CacheWriter(tmp_path, 0, dtype="float16", fingerprint="f", in_8_bits=True)
    with pytest.raises(ValueError, match="pixel_features of clip 0 holds nan"):
        writer.add([replace(clip("a", 0), pixel_features=np.full((P, D), np.nan, np.float32))])
    writer.abandon()
