"""The moving average of weights: the formula, its place in checkpoints, and a resume that does not change it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from jobs.cluster import ClusterConfig
from jobs.training.average import AVERAGE, WeightAverage
from jobs.training.loop import FitConfig
from jobs.training.trainer import TrainingJob, train, train_in_memory
from tests.jobs.training.falling import RATE, falling_stage

FIT = FitConfig(steps=40, log_every=10, checkpoint_every=8, ema=0.5)


def job(folder, **settings) -> TrainingJob:
    return TrainingJob(build=partial(falling_stage, **{"fit": FIT, **settings}), folder=folder,
                       cluster=ClusterConfig(in_process=True), fit=FIT, record=None)


def test_the_average_lags_behind_the_weights_by_the_formula(tmp_path):
    [last] = train(job(tmp_path / "last", fit=replace(FIT, ema=0.0)), identity={}).values()
    [average] = train(job(tmp_path / "average"), identity={}).values()
    expected = 0.0
    for step in range(1, FIT.steps + 1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * last.item() * step / FIT.steps
    assert average.item() == pytest.approx(expected, abs=1e-4)
    assert average.item() - last.item() == pytest.approx(RATE, abs=0.02)      # one step behind, at a decay of a half


def test_a_training_that_was_stopped_ends_with_the_same_average(tmp_path):
    undisturbed = train(job(tmp_path / "one"), identity={})
    with pytest.raises(KeyboardInterrupt):
        train(job(tmp_path / "two", dies_at=20), identity={})
    resumed = train(job(tmp_path / "two"), identity={})
    in_memory, _ = train_in_memory(partial(falling_stage, fit=FIT), FIT, device=torch.device("cpu"))
    for name, value in undisturbed.items():
        assert torch.equal(resumed[name], value)
        assert torch.equal(in_memory[name], value)
    assert len(list(tmp_path.rglob(AVERAGE))) > 1


def test_the_model_has_its_own_weights_again_behind_the_block():
    model = nn.BatchNorm1d(2)
    average = WeightAverage(0.9, model)
    with torch.no_grad():
        model.weight += 1
        model.num_batches_tracked += 7
    average.update(1000, model)
    with average.in_place_of(model):
        assert model.weight.tolist() == pytest.approx([1.1, 1.1])
        assert model.num_batches_tracked.item() == 7
    assert model.weight.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("ema", [-0.1, 1.0])
def test_a_decay_that_averages_nothing_is_refused(ema):
    with pytest.raises(ValueError, match=r"must be at least 0 and less than 1"):
        FitConfig(ema=ema)
