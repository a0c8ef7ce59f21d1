"""One of several processes that train together on this machine, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from jobs.training.loop import rank
from jobs.training.process import SingleProcess


@dataclass(frozen=True)
class Rank(SingleProcess):
    """A process whose gradients are those of all, and of which only the first writes checkpoints."""

    def wrap(self, model: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(model)

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        if rank() == 0:
            super().keep(step, write)
