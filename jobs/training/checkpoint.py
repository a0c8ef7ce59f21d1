"""Training checkpoints on disk, from which an interrupted training resumes.

A checkpoint is `model.safetensors`, `optimizer.pt` and `state.json` with the sha256 of both. Nothing is ever unpickled
except the optimizer's tensors, with `weights_only=True`. Finished models are the affair of `jobs.models`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pipeline import store
from pipeline.errors import Mismatch
from pipeline.files import atomic_write, sha256_of
from pipeline.foreign_files import own_json
from pipeline.seals import sealed

SCHEMA = 1
FILES = ("model.safetensors", "optimizer.pt")
BEST = "best.safetensors"      # weights with the best score so far, where a stage keeps them
CHECKPOINT_CURE = "Remove the folder of this checkpoint to resume from an earlier one."


class Damaged(Mismatch):
    """A checkpoint whose files are not the ones that were written."""


def save_checkpoint(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer,
                    state: Mapping[str, Any], further: Mapping[str, Mapping[str, Tensor]] | None = None) -> None:
    """Write a checkpoint into an existing folder; `state.json` is written last. Raises OSError naming the file.

    further: name of a file -> weights that belong to it; empty ones are left out.
    """
    atomic_write(folder / "model.safetensors", save(contiguous(model.state_dict())))
    buffer = io.BytesIO()       # torch hides the reason why a file cannot be written
    torch.save(optimizer.state_dict(), buffer)
    atomic_write(folder / "optimizer.pt", buffer.getbuffer())
    others = {name: weights for name, weights in (further or {}).items() if weights}
    for name, weights in others.items():
        atomic_write(folder / name, save(contiguous(weights)))
    files = {name: sha256_of(folder / name) for name in (*FILES, *others)}
    content = sealed({"schema": SCHEMA, "files": files, **state})
    atomic_write(folder / "state.json", json.dumps(content, indent=1).encode())


def whole_state(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint, after a check that all its files are the ones that were written.

    Raises BadInput for a damaged `state.json`, Damaged for another file that is missing or differs from the one in
    `state.json`, FileNotFoundError without `state.json`, and Mismatch for a checkpoint of another version.
    """
    store.look(folder)      # another machine may have written it
    state = own_json(folder / "state.json", needs={"files": dict, "step": int}, cure=CHECKPOINT_CURE)
    if state.get("schema", SCHEMA) != SCHEMA:
        raise Mismatch(f"{folder / 'state.json'} has schema {state.get('schema')}, this version reads {SCHEMA}. Resume "
                       "with the version that wrote it, or move the folder of this checkpoint away to resume from an "
                       "earlier one.")
    for name in dict.fromkeys((*FILES, *state["files"])):
        if not (folder / name).is_file():
            raise Damaged(f"{folder / name} is missing. {CHECKPOINT_CURE}")
        expected = str(state["files"].get(name))
        if (actual := sha256_of(folder / name)) != expected:
            raise Damaged(f"{folder / name} has sha256 {actual[:12]}..., but state.json lists {expected[:12]}...; "
                          f"the checkpoint is damaged. {CHECKPOINT_CURE}")
    return state


def load_checkpoint(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore a checkpoint and return its state. Raises the errors of `whole_state`."""
    state = whole_state(folder)
    weights = _tensors(folder / "model.safetensors", load_file)
    moments = _tensors(folder / "optimizer.pt", partial(torch.load, weights_only=True))
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    return state


def _tensors(path: Path, read: Callable[[Path], Any]) -> Any:
    """The content of a file of tensors. Raises Damaged for one that holds something else, such as a program."""
    try:
        return read(path)
    except OSError:
        raise
    except Exception as error:      # on other bytes the readers raise errors of almost any type
        raise Damaged(f"{path} holds no tensors ({type(error).__name__}), and nothing in it was executed. "
                      f"{CHECKPOINT_CURE}") from None


def contiguous(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the weights on the CPU that share no memory, since safetensors can write no others."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
