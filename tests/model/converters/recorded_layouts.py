"""Names, types and shapes of the weights of complete official models, as recorded beside the checkout."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from tests.conftest import SHARED

LAYOUTS = SHARED / "parity" / "state_dict_layouts"


def layout_file(name: str) -> dict[str, tuple[str, list[int]]]:
    if not (LAYOUTS / f"{name}.json").is_file():
        pytest.skip("the layouts of official models are not beside this checkout")
    return json.loads((LAYOUTS / f"{name}.json").read_text())["weights"]


def shapes_only(name: str) -> dict[str, Tensor]:
    return {key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
            for key, (dtype, shape) in layout_file(name).items()}


def random_state(name: str) -> dict[str, Tensor]:
    """A state dict of a complete official model with which a forward pass stays finite."""
    state = {}
    for key, (dtype, shape) in layout_file(name).items():
        if dtype == "int64":
            state[key] = torch.randint(1, 100_000, shape)
            continue
        tensor = torch.empty(shape).normal_(std=0.02)
        state[key] = 1 + tensor.abs_() if key.endswith("running_var") else tensor
    return state
