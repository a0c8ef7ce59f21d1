"""The process that training runs in: one of Ray Train's workers, or the process of the verb itself.

Both classes offer the same: a device, the model wrapped for it, and checkpoints that outlive the process. Each resumes
from the checkpoints of the other.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import ray.train
import torch
from ray.train import Checkpoint
from ray.train.torch import get_device, prepare_model
from torch import nn

from jobs.training.loop import rank

# Folders of checkpoints, inside the folder of a stage.
RAY_CHECKPOINTS = "ray_train"
OWN_CHECKPOINTS = "checkpoints"
Result = TypeVar("Result")


@dataclass(frozen=True)
class RayWorker:
    """One of the processes that Ray Train started. Ray keeps the checkpoints that all ranks have reported."""

    folder: Path            # of the stage

    @property
    def device(self) -> torch.device:
        return get_device()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model on its device, wrapped in DDP where there are several workers."""
        return prepare_model(model, parallel_strategy_kwargs={"forward_sync_buffers": False})

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Report a step, which every rank must do; rank 0 also writes the checkpoint."""
        if rank() > 0:
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(folder),
                             checkpoint_dir_name=checkpoint_name(step))

    def newest(self, read: Callable[[Path], Result]) -> Result | None:
        """The result of `read` on the newest checkpoint, None where there is none."""
        return newest_of_both(self.folder, ray.train.get_checkpoint(), read)


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
        """Write a checkpoint under a temporary name, rename it, and remove those too old to be kept."""
        folder = self.folder / OWN_CHECKPOINTS
        name = checkpoint_name(step)
        partial = folder / f".{name}"
        finished = folder / name
        for leftover in (partial, finished):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        partial.rename(finished)
        for old in checkpoints(folder)[:-self.keeps]:
            shutil.rmtree(old)

    def newest(self, read: Callable[[Path], Result]) -> Result | None:
        """The result of `read` on the newest checkpoint, None where there is none."""
        kept = [path for folder in (RAY_CHECKPOINTS, OWN_CHECKPOINTS) for path in checkpoints(self.folder / folder)]
        return read(max(kept, key=lambda path: path.name)) if kept else None


def newest_of_both(folder: Path, ray_checkpoint: Checkpoint | None, read: Callable[[Path], Result]) -> Result | None:
    """The result of `read` on Ray's checkpoint or on that of a single process, whichever has more steps.

    None where there is neither. Ray's folder is not searched: a killed worker may have left half a checkpoint there,
    which Ray does not list.
    """
    own = checkpoints(folder / OWN_CHECKPOINTS)
    if own and (ray_checkpoint is None or own[-1].name > Path(ray_checkpoint.path).name):
        return read(own[-1])
    if ray_checkpoint is None:
        return None
    with ray_checkpoint.as_directory() as path:
        return read(Path(path))


def checkpoint_name(step: int) -> str:
    """The folder name of one checkpoint; the names sort by step."""
    return f"step-{step:07d}"


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted(path.parent for path in folder.glob("step-*/state.json"))
