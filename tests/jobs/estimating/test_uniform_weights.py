"""Weights for measuring have the mean and the deviation of those for training, and are drawn once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jobs.estimating.uniform_weights import UniformWeights
from model.layers.convolution import truncated_normal_


def test_mean_and_deviation_are_those_that_were_asked_for():
    torch.manual_seed(0)
    with UniformWeights():
        weights = torch.empty(100_000).normal_(0.5, 2.0)
    assert weights.mean().item() == pytest.approx(0.5, abs=0.05)
    assert weights.std().item() == pytest.approx(2.0, rel=0.02)
    assert (weights - 0.5).abs().max() <= 2 * 3**0.5


def test_a_truncated_normal_distribution_is_drawn_once(monkeypatch):
    draws = []
    uniform = Tensor.uniform_
    monkeypatch.setattr(Tensor, "uniform_", lambda self, *args, **options: draws.append(1) or uniform(
        self, *args, **options))
    with UniformWeights():
        weights = truncated_normal_(torch.empty(10_000), std=0.1)
    assert len(draws) == 1
    assert 0.09 < weights.std() < 0.11


def test_a_network_is_normal_again_outside():
    torch.manual_seed(0)
    before = nn.init.trunc_normal_(torch.empty(5))
    with UniformWeights():
        nn.init.trunc_normal_(torch.empty(5))
    torch.manual_seed(0)
    assert torch.equal(nn.init.trunc_normal_(torch.empty(5)), before)
