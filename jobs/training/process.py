"""Where training runs: among the workers of Ray Train, or alone in the process of its verb.

Both give the loop the same: a device, the model as it is called there, checkpoints that outlive the process, and the
newest of them. Either goes on where the other stopped.
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

# folders of checkpoints, inside a stage's own
OF_RAY = "ray_train"
OF_ALONE = "checkpoints"
Found = TypeVar("Found")


@dataclass(frozen=True)
class AmongWorkers:
    """One of the processes Ray Train has started; Ray keeps the checkpoints that all ranks have reported."""

    folder: Path            # of the stage

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
        return newest_of_both(self.folder, ray.train.get_checkpoint(), read)


@dataclass(frozen=True)
class Alone:
    """This process by itself, without Ray."""

    folder: Path            # of the stage
    keeps: int              # newest checkpoints
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model on its device."""
        return model.to(self.device)

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        """Write a checkpoint under a temporary name, rename it, and remove those too old to be kept."""
        folder = self.folder / OF_ALONE
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

    def newest(self, read: Callable[[Path], Found]) -> Found | None:
        """What `read` finds in the newest checkpoint, None where there is none."""
        kept = [path for folder in (OF_RAY, OF_ALONE) for path in checkpoints(self.folder / folder)]
        return read(max(kept, key=lambda path: path.name)) if kept else None


def newest_of_both(folder: Path, of_ray: Checkpoint | None, read: Callable[[Path], Found]) -> Found | None:
    """What `read` finds in Ray's checkpoint, or in that of a process alone where this is further; None without either.

    Ray's folder is not looked into: a killed worker may have left half a checkpoint there, which Ray does not count.
    """
    alone = checkpoints(folder / OF_ALONE)
    if alone and (of_ray is None or alone[-1].name > Path(of_ray.path).name):
        return read(alone[-1])
    if of_ray is None:
        return None
    with of_ray.as_directory() as found:
        return read(Path(found))


def checkpoint_name(step: int) -> str:
    """The folder of one checkpoint; names sort by step."""
    return f"step-{step:07d}"


def checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted(path.parent for path in folder.glob("step-*/state.json"))
