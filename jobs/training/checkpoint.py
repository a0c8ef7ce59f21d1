"""Training checkpoints and finished models on disk: safetensors beside JSON that says what made them.

A *checkpoint* is what a run resumes from: `model.safetensors`, `optimizer.pt`, `state.json` with the sha256 of both.
A *model* is what other verbs read: `model.safetensors` and `model.json` (architecture, recipe, fingerprints).
Nothing is ever unpickled except optimizer tensors, with `weights_only=True`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from pipeline.errors import Mismatch
from pipeline.files import atomic_write, sha256_of

SCHEMA = 1
SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"       # set by `ray job submit`: the job's configuration


def save_checkpoint(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer,
                    state: Mapping[str, Any]) -> None:
    """Write a checkpoint into an existing folder; `state.json` comes last."""
    save_file(_contiguous(model.state_dict()), folder / "model.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    files = {name: sha256_of(folder / name) for name in ("model.safetensors", "optimizer.pt")}
    atomic_write(folder / "state.json", json.dumps({"schema": SCHEMA, "files": files, **state}, indent=1).encode())


def load_checkpoint(folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore a checkpoint and return its state. Raises Mismatch when a file is not the one `state.json` lists."""
    state = json.loads((folder / "state.json").read_text())
    for name, expected in state["files"].items():
        if (found := sha256_of(folder / name)) != expected:
            raise Mismatch(f"{folder / name} has sha256 {found[:12]}..., its state.json says {expected[:12]}...; "
                           "the checkpoint is damaged: remove its folder and resume from an earlier one")
    model.load_state_dict(load_file(folder / "model.safetensors"))
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    return state


def save_model(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write a finished model: weights first, then `model.json` = card + sha256 of the weights, which makes it exist.

    Raises OSError naming the file that cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "model.safetensors", save(_contiguous(weights)))
    card = {"schema": SCHEMA, "weights_sha256": sha256_of(folder / "model.safetensors"), **card}
    atomic_write(folder / "model.json", json.dumps(card, indent=1, sort_keys=True).encode())


def read_card(folder: Path) -> dict[str, Any]:
    """`model.json` of a finished model. Raises FileNotFoundError with the verb that would make it."""
    path = Path(folder) / "model.json"
    if not path.is_file():
        raise FileNotFoundError(f"no finished model in {folder} (model.json is missing); run the training verb first, "
                                "or point the recipe at another folder")
    card = json.loads(path.read_text())
    if card.get("schema") != SCHEMA:
        raise Mismatch(f"{path} has schema {card.get('schema')}, this version reads {SCHEMA}: train it again")
    return card


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a finished model, after checking them against its card."""
    card = read_card(folder)
    path = Path(folder) / "model.safetensors"
    if (found := sha256_of(path)) != card["weights_sha256"]:
        raise Mismatch(f"{path} has sha256 {found[:12]}..., model.json says {card['weights_sha256'][:12]}...; "
                       "the files do not belong together: copy the folder again")
    return load_file(path)


def code_version() -> dict[str, Any]:
    """Commit of the running code and whether it was changed.

    A submitted job runs in a copy without git: there it is the package Ray made of the code, named by its content.
    'unknown' outside both.
    """
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent,
                              check=True, timeout=10).stdout.strip()
    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        job = json.loads(os.environ.get(SUBMITTED_JOB, "{}"))
        return {"commit": job.get("runtime_env", {}).get("working_dir", "unknown"), "changed": False}


def _contiguous(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
