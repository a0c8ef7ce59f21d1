"""Training checkpoints on disk, from which an interrupted training resumes.

A checkpoint is `model.safetensors`, `optimizer.pt` and `state.json` with the sha256 of both. Nothing is ever unpickled
except the optimizer's tensors, with `weights_only=True`. Finished models are the affair of `jobs.models`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import Mismatch
from pipeline.files import atomic_write, sha256_of
from pipeline.foreign_files import own_json

SCHEMA = 1
CHECKPOINT_CURE = "Remove the folder of this checkpoint to resume from an earlier one."


def save_checkpoint(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer,
                    state: Mapping[str, Any]) -> None:
    """Write a checkpoint into an existing folder; `state.json` is written last."""
    save_file(contiguous(model.state_dict()), folder / "model.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    files = {name: sha256_of(folder / name) for name in ("model.safetensors", "optimizer.pt")}
    atomic_write(folder / "state.json", json.dumps({"schema": SCHEMA, "files": files, **state}, indent=1).encode())


def load_checkpoint(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore a checkpoint and return its state. Raises Mismatch when a file differs from the one in `state.json`."""
    state = own_json(folder / "state.json", needs={"files": dict}, cure=CHECKPOINT_CURE)
    for name, expected in state["files"].items():
        if (actual := sha256_of(folder / name)) != expected:
            raise Mismatch(f"{folder / name} has sha256 {actual[:12]}..., but state.json lists {expected[:12]}...; "
                           "the checkpoint is damaged: remove its folder to resume from an earlier one")
    model.load_state_dict(load_file(folder / "model.safetensors"))
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    return state


def contiguous(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the weights on the CPU that share no memory, since safetensors can write no others."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
