"""A training checkpoint restores everything, and is refused when it is damaged."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jobs.training.checkpoint import load_checkpoint, save_checkpoint
from jobs.training.optimizer import OptimizerConfig, build_optimizer
from pipeline.errors import Mismatch


@pytest.fixture
def trained():
    """A small model after one step of its optimizer, and the optimizer."""
    model = nn.Linear(3, 1)
    optimizer = build_optimizer(model, OptimizerConfig())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_a_checkpoint_restores_weights_optimizer_and_state(trained, tmp_path):
    model, optimizer = trained
    save_checkpoint(tmp_path, model=model, optimizer=optimizer, state={"step": 1})
    other = nn.Linear(3, 1)
    other_optimizer = build_optimizer(other, OptimizerConfig())
    assert load_checkpoint(tmp_path, model=other, optimizer=other_optimizer)["step"] == 1
    assert torch.equal(other.weight, model.weight)
    momentum = [opt.state_dict()["state"][0]["exp_avg"] for opt in (optimizer, other_optimizer)]
    assert momentum[0].any()
    assert torch.equal(*momentum)


def test_a_damaged_checkpoint_is_refused(trained, tmp_path):
    model, optimizer = trained
    save_checkpoint(tmp_path, model=model, optimizer=optimizer, state={"step": 1})
    with (tmp_path / "optimizer.pt").open("ab") as file:
        file.write(b"x")
    with pytest.raises(Mismatch, match="damaged"):
        load_checkpoint(tmp_path, model=model, optimizer=optimizer)
