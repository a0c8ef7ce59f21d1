"""Ranking: means over seeds, paired intervals, and failures at the end."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jobs.sweeping.ranking import TrialResult, best_of, ranked, table


def result(setting: str, seed: int, score: float, *, draws: np.ndarray, number: str = "vpq") -> TrialResult:
    return TrialResult(name=f"{setting}{seed}", settings=(setting,), seed=seed, numbers={number: score},
                       draws={number: draws.tolist()})


def noisy(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 5, 200)


def test_rows_are_ranked_by_the_mean_over_seeds_and_failures_come_last():
    noise = noisy(0)
    results = [result("x=1", 0, 40, draws=40 + noise), result("x=1", 1, 44, draws=44 + noise),
               result("x=2", 0, 50, draws=50 + noise), TrialResult(name="d", settings=("x=3",), seed=0, error="broke")]
    rows = ranked(results, "vpq")
    assert [row.settings for row in rows] == [("x=2",), ("x=1",), ("x=3",)]
    assert [row.score for row in rows[:2]] == [50, 42]
    assert [row.failed for row in rows] == [0, 0, 1]
    assert math.isnan(rows[2].score)
    assert "failed: broke" in table(rows, "vpq")


def test_fewer_switches_are_better():
    results = [result("x=1", 0, 40, draws=noisy(0), number="switches"),
               result("x=2", 0, 4, draws=noisy(0), number="switches")]
    assert ranked(results, "switches")[0].settings == ("x=2",)
    assert best_of(results, "switches").settings == ("x=2",)


def test_differences_are_paired_so_what_all_settings_share_cancels():
    noise = noisy(0)
    results = [result(f"x={n}", seed, 50 - n, draws=50 - n + noise) for n in (0, 1) for seed in (0, 1)]
    first, second = ranked(results, "vpq")
    assert first.interval[1] - first.interval[0] > 10
    assert second.difference == pytest.approx((-1, -1, -1))


def test_the_interval_of_one_seed_is_that_of_its_draws():
    draws = 30 + noisy(1)
    (row,) = ranked([result("x=1", 0, 30, draws=draws)], "vpq")
    assert row.interval == pytest.approx(tuple(np.percentile(draws, (2.5, 97.5))))


def test_a_score_that_no_video_is_long_enough_for_is_told_from_a_failure():
    unscored = TrialResult(name="a", settings=("x=1",), seed=0, numbers={"vpq_k12": None},
                           draws={"vpq_k12": [None] * 200})
    text = table(ranked([unscored], "vpq_k12"), "vpq_k12")
    assert "nothing to score" in text
    assert "failed" not in text
