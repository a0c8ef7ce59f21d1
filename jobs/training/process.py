"""The process that training runs in: one of Ray Train's workers, or the process of the verb itself.

Both classes offer the same: a device, the model wrapped for it, and checkpoints that outlive the process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from torch import nn

from jobs.training.checkpoint_folders import OWN_CHECKPOINTS, RAY_CHECKPOINTS, add_checkpoint
from jobs.training.loop import rank


@dataclass(frozen=True)
class RayWorker:
    """One of the processes that Ray Train started. All machines see the folder."""

    folder: Path            # of the stage
    keeps: int              # number of checkpoints that are kept

    @property
    def device(self) -> torch.device:
        return get_device()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model on its device, wrapped in DDP where there are several workers."""
        return prepare_model(model, parallel_strategy_kwargs={"forward_sync_buffers": False})

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Write a checkpoint on rank 0, and remove those too old to be kept.

        Ray is not given the checkpoint: it would copy the files one by one, and a kill would leave half of them.
        """
        if rank() == 0:
            add_checkpoint(self.folder, RAY_CHECKPOINTS, step, write, keeps=self.keeps)

    def report(self, step: int) -> None:
        """Tell Ray that a step is saved, which every rank must do."""
        ray.train.report({"step": step})


@dataclass(frozen=True)
class SingleProcess:
    """A single process without Ray."""

    folder: Path            # of the stage
    keeps: int              # number of checkpoints that are kept
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model on its device."""
        return model.to(self.device)

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Write a checkpoint, and remove those too old to be kept."""
        add_checkpoint(self.folder, OWN_CHECKPOINTS, step, write, keeps=self.keeps)

    def report(self, step: int) -> None:
        """Nobody has to be told that a step is saved."""
