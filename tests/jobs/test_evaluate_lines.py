"""What `evaluate` tells people beside its tables."""

from __future__ import annotations

import pytest

from jobs.evaluate import short_videos


@pytest.mark.parametrize(("by_window", "words"), [
    ({"1": 50.0, "2": 40.0, "4": 30.0, "6": None, "8": None}, "no video has a scored window of 6 frames"),
    ({"1": 50.0, "2": None, "4": None, "6": None}, "no video has a scored window of 2 or 4 or 6 frames")])
def test_videos_that_are_too_short_for_a_mean_of_vpq_are_told(by_window, words):
    line, = short_videos({"vpq_by_window": by_window})
    assert words in line


@pytest.mark.parametrize("summary", [
    {}, {"vpq_by_window": {"1": 1.0, "2": 1.0, "4": 0.0, "6": 1.0, "12": None}},
    {"vpq_by_window": {"1": None, "2": None, "4": None, "6": None}}])
def test_nothing_is_told_where_vpq_has_a_mean_or_nothing_is_scored(summary):
    assert short_videos(summary) == []
