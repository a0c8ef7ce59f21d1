"""The study of pixel evidence: rows are measured once, all pixels give the true gradient, and a plot is made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.evidence import Kept, line, measured, plot, without_idle
from benchmarks.in_the_loop import InTheLoop, table
from benchmarks.query_cache import prepare, toy_recipe
from jobs.config import override
from jobs.train_stage_two import open_cache
from tests.pipeline.query_cache.test_cache import clip

WAYS = (Kept(strategy="dense", pixels=1), Kept(strategy="mixed", pixels=64),
        Kept(strategy="uniform", pixels=64, bits=8))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return prepare(override(toy_recipe(str(tmp_path_factory.mktemp("study") / "run")), ["stage_two.fit.steps=2"]))


def test_rows_are_measured_once_and_all_pixels_differ_by_half_precision_alone(recipe, tmp_path):
    rows = list(measured(recipe, tmp_path, windows=2, draws=2, ways=WAYS))
    assert [(row["head"], row["kept"]) for row in rows] == [
        (head, str(way)) for head in ("new", "trained") for way in WAYS]
    every, some, few_bits = rows[:3]
    assert every["lowest"] > 0.999
    assert every["spread"] == 0
    assert 0 < some["cosine"] < every["cosine"]
    assert few_bits["bytes"] < some["bytes"] < every["bytes"]
    [file] = tmp_path.iterdir()
    written = file.read_text()
    assert list(measured(recipe, tmp_path, windows=2, draws=2, ways=WAYS)) == rows
    assert file.read_text() == written
    assert plot(rows).startswith(b"\x89PNG")
    assert str(WAYS[1]) in line(some)


def test_idle_queries_are_those_that_are_sure_in_no_clip():
    logits = np.zeros((2, 5, 3), np.float16)
    logits[..., -1] = 5
    logits[0, 1, 0] = 9
    logits[1, 3, 0] = 9
    clips = [replace(clip("a", index), class_logits=logits[index]) for index in range(2)]
    for before, after in zip(clips, without_idle(clips, sure=0.5), strict=True):
        assert np.array_equal(after.queries, before.queries[[1, 3]])
        assert np.array_equal(after.class_logits, before.class_logits[[1, 3]])
        assert np.array_equal(after.pixel_features, before.pixel_features)


def test_in_the_loop_has_the_clips_of_the_cache_with_all_pixels(recipe):
    cache = open_cache(recipe)
    loop = InTheLoop(recipe, fresh=False)
    assert list(loop.videos) == list(cache.videos)
    assert loop.groups.frames.tolist() == cache.groups.frames.tolist()
    for group in range(2):
        for stored, seen in zip(cache.read(group), loop.read(group), strict=True):
            np.testing.assert_allclose(stored.queries, seen.queries, atol=2e-3, rtol=1e-3)
            assert np.array_equal(stored.tube_areas, seen.tube_areas)
            assert len(seen.pixel_weights) > len(stored.pixel_weights)
            assert set(seen.pixel_weights.tolist()) <= {0.0, 1.0}       # 0: repeats of the last frame
            assert seen.pixel_weights.sum() == len(seen.pixel_weights) * seen.num_frames / 2


def test_the_table_pairs_seeds():
    rows = [{"way": way, "seed": seed, "score": score} for way, seed, score in (
        ("a", 0, 70.0), ("b", 0, 71.0), ("a", 1, 80.0), ("b", 1, 78.0))]
    assert [entry.split() for entry in table(rows)][1:] == [
        ["a", "75.00", "+0.00", "+0.00", "+0.00", "2"], ["b", "74.50", "-0.50", "-2.00", "+1.00", "2"]]
