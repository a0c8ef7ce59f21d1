"""The moving average of the weights while a model trains, which `fit.ema` asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

AVERAGE = "average.safetensors"     # in a checkpoint


class WeightAverage:
    """average = decay * average + (1 - decay) * weights after each step, in the one process that saves.

    The decay of early steps is lower, (1 + step) / (10 + step), so that the first weights are forgotten. Statistics of
    norms are averaged too; values that are no floating-point numbers are the latest ones. It lies in each checkpoint.
    """

    def __init__(self, decay: float, model: nn.Module, checkpoint: Path | None = None) -> None:
        """checkpoint: from which the training resumes; without an average there, it begins at the model's weights."""
        self.decay = decay
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}
        if checkpoint is not None and (checkpoint / AVERAGE).is_file():
            stored = load_file(checkpoint / AVERAGE)
            self.weights = {name: stored[name].to(value.device) for name, value in self.weights.items()}

    def update(self, step: int, model: nn.Module) -> None:
        """Take in the weights after a step, of which there were `step` so far."""
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    self.weights[name].lerp_(value, 1 - decay)
                else:
                    self.weights[name].copy_(value)

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """The model has the average as its weights inside the block, and its own ones again behind it."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(own)
