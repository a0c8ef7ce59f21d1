"""The process that training runs in: a device, the model wrapped for it, and checkpoints that outlive the process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from jobs.training.checkpoint_folders import OWN_CHECKPOINTS, add_checkpoint
from jobs.training.uploads import Uploads


class Leaving(Exception):
    """Training stopped after a saved step, since a machine of its processes will soon be gone. It goes on elsewhere."""


class TrainingProcess(Protocol):
    """What training needs of the process that it runs in. `jobs/training/on_cluster.py` has the one of Ray Train."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model on its device, ready for gradients of all processes."""

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Write a checkpoint, and remove those too old to be kept. Its upload to a store may go on afterwards."""

    def finish(self) -> None:
        """Wait until the last checkpoint is uploaded."""

    def is_leaving(self) -> bool:
        """Whether the machine of this process will soon be gone, so that training goes on elsewhere after a step."""


@dataclass(frozen=True)
class SingleProcess:
    """A single process without Ray."""

    folder: Path            # of the stage
    keeps: int              # number of checkpoints that are kept
    device: torch.device
    uploads: Uploads = field(default_factory=Uploads)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model on its device."""
        return model.to(self.device)

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Write a checkpoint, and remove those too old to be kept."""
        add_checkpoint(self.folder, OWN_CHECKPOINTS, step, write, keeps=self.keeps, uploads=self.uploads)

    def finish(self) -> None:
        """Wait until the last checkpoint is uploaded."""
        self.uploads.wait()

    def is_leaving(self) -> bool:
        """Nobody says that this machine will be gone."""
        return False
