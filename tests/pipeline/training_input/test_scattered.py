"""An order that is computed place by place is a permutation, depends on its keys, and looks like a shuffled one."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.training_input import sample_plan
from pipeline.training_input.sample_plan import SamplePlan
from pipeline.training_input.scattered import keys_from, scattered


def keys(seed: int) -> np.ndarray:
    return keys_from(np.random.default_rng(seed))


@pytest.mark.parametrize("count", [*range(1, 20), 255, 256, 257, 1000, 4096, 10_007])
def test_every_number_comes_once(count):
    order = scattered(np.arange(count), count=count, keys=keys(count))
    assert sorted(order.tolist()) == list(range(count))


def test_a_place_has_its_number_whatever_else_is_asked_for():
    order = scattered(np.arange(1000), count=1000, keys=keys(0))
    assert scattered(np.array([7, 999]), count=1000, keys=keys(0)).tolist() == order[[7, 999]].tolist()
    assert (scattered(np.arange(1000), count=1000, keys=keys(1)) != order).mean() > 0.99


def test_numbers_of_neighbouring_places_are_unrelated():
    order = scattered(np.arange(100_000), count=100_000, keys=keys(0)).astype(float)
    for apart in (1, 2, 16, 256):
        assert abs(np.corrcoef(order[apart:], order[:-apart])[0, 1]) < 0.02
    parts = np.histogram2d(np.arange(100_000), order, bins=10)[0]
    assert abs(parts / 1000 - 1).max() < 0.15       # four to five deviations of a part


def test_an_epoch_of_many_samples_draws_each_once_and_another_epoch_in_another_order(monkeypatch):
    monkeypatch.setattr(sample_plan, "MOST_SHUFFLED", 100)
    plan = SamplePlan(count=60, global_batch=4, samples_per_video=np.arange(60) % 5)
    steps = range(plan.steps_per_epoch)
    epochs = [[(draw.video, draw.repeat) for step in steps for draw in plan.batch(step + epoch * len(steps))]
              for epoch in range(2)]
    every = [(video, repeat) for video in range(60) for repeat in range(video % 5)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == every
    assert epochs[0] != epochs[1]
    parts = [plan.batch(3, rank=rank, world=2) for rank in range(2)]
    assert [*parts[0], *parts[1]] == plan.batch(3)
