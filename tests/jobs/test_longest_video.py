"""The search for the longest video: it finds any limit, and memory grows with the video."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import longest_video
from jobs.longest_video import FIRST, TOLERANCE, longest, peak_of
from jobs.recipes import find_recipe
from model.cross_clip.vita import VitaTestConfig

SIZE = (64, 64)


@given(st.integers(0, 100_000))
def test_any_limit_is_found_to_the_tolerance_without_trying_more_than_twice_as_much(limit: int):
    tried = []

    def fits(number: int) -> bool:
        tried.append(number)
        return number <= limit

    found = longest(fits)
    assert limit * (1 - TOLERANCE) - 1 < found <= limit
    assert max(tried) <= max(2 * limit, FIRST)
    assert min(tried) >= 1
    assert len(tried) <= 30


def test_a_recipe_without_a_head_is_refused():
    with pytest.raises(ValueError, match="no cross-clip head"):
        longest_video.main(find_recipe("vipseg_video_kmax_r50"), gigabytes=12)


@pytest.mark.long
def test_a_longer_video_takes_more_memory_and_too_little_memory_is_named(monkeypatch):
    recipe = find_recipe("tiny_vita")
    short, long = (peak_of(recipe, clips=clips, size=SIZE) for clips in (8, 2000))
    assert long - short > 2000 * 16 * 64 * 4 / 1e9              # at least the queries, in single precision
    monkeypatch.setattr(longest_video, "FIRST", 1)
    with pytest.raises(ValueError, match=r"not even one clip .* --gigabytes"):
        longest_video.main(recipe, gigabytes=0.01, size=SIZE)


def test_the_head_is_that_of_test_time(monkeypatch):
    seen = []
    monkeypatch.setattr("model.cross_clip.vita.in_windows",
                        lambda layer, tokens, *, window, first: seen.append(window) or tokens)
    recipe = find_recipe("tiny_vita")
    recipe = replace(recipe, inference=replace(recipe.inference, head=VitaTestConfig(window=4)))
    assert longest_video.take_through(recipe, 3, SIZE) > 0
    assert set(seen) == {4}
