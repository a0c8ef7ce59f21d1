"""Where training runs: among the workers of Ray Train, or alone in the process of its verb.

Both give the loop the same: a device, the model as it is called there, checkpoints that outlive the process, and the
newest of them. They name checkpoints alike, so either goes on where the other stopped.
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

CHECKPOINTS = "ray_train"       # folder inside a stage's own
Found = TypeVar("Found")


class AmongWorkers:
    """One of the processes Ray Train has started; Ray keeps the checkpoints that all ranks have reported."""

    @property
    def device(self) -> torch.device:
        return get_device()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model on its device, in DDP where there is more than one worker."""
        return prepare_model(model, parallel_strategy_kwargs={"forward_sync_buffers": False})

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Report a step on every rank; rank 0 writes the checkpoint."""
        if rank() > 0:
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(folder),
                             checkpoint_dir_name=checkpoint_name(step))

    def newest(self, read: Callable[[Path], Found]) -> Found | None:
        """What `read` finds in the newest checkpoint, None where there is none."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return read(Path(folder))


@dataclass(frozen=True)
class Alone:
    """This process by itself, without Ray; checkpoints lie in `folder`, where the cluster's would."""

    folder: Path
    keeps: int              # newest checkpoints
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model on its device."""
        return model.to(self.device)

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Write a checkpoint under a temporary name, rename it, and remove those too old to be kept."""
        partial, finished = self.folder / f".{checkpoint_name(step)}", self.folder / checkpoint_name(step)
        for leftover in (partial, finished):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        partial.rename(finished)
        for old in checkpoints(self.folder)[:-self.keeps]:
            shutil.rmtree(old)

    def newest(self, read: Callable[[Path], Found]) -> Found | None:
        """What `read` finds in the newest checkpoint, None where there is none."""
        kept = checkpoints(self.folder)
        return read(kept[-1]) if kept else None


def checkpoint_name(step: int) -> str:
    """The folder of one checkpoint; names sort by step."""
    return f"step-{step:07d}"


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted(path.parent for path in folder.glob("step-*/state.json"))
