"""A stage whose one weight falls by about `RATE` a step from 0 on, and whose training may die."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from jobs.training.optimizer import OptimizerConfig
from jobs.training.trainer import Stage

RATE = 0.1


def falling_stage(*, dies_at: int | None = None, **fields: Any) -> Stage:
    """The stage, with batches of one video each. dies_at: batch in place of which Ctrl-C comes. fields: of `Stage`."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)

    def batches(rank, world, consumed):
        for step in range(consumed, 1000):
            if step == dies_at:
                raise KeyboardInterrupt
            yield SimpleNamespace(videos=("v",), to=lambda _: SimpleNamespace(videos=("v",)))

    return Stage(model=model, losses_of=lambda wrapped, _: {"loss": wrapped.weight.sum()}, batches=batches,
                 optimizer=OptimizerConfig(lr=RATE, weight_decay=0, warmup_steps=0, schedule="poly", power=0.0),
                 batch_size=1, **fields)
