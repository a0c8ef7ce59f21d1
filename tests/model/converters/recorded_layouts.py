"""Names, types and shapes of the weights of complete official models, as recorded beside the checkout."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from model.converters.layouts import HEAD, read_layout
from model.converters.official import Conversion, to_theirs
from model.segmenters import SegmenterConfig
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


@torch.inference_mode()
def check_it_runs_and_comes_back(state: dict[str, Tensor], conversion: Conversion, config: SegmenterConfig, *,
                                 side: int) -> None:
    """Loaded strictly, run on frames of `side` pixels, and equal byte for byte after the way back."""
    with torch.device("meta"):
        segmenter = config.build()
    segmenter.load_state_dict({key: tensor for key, tensor in conversion.weights.items() if not key.startswith(HEAD)},
                              strict=True, assign=True)
    prediction = segmenter.eval()(torch.randint(0, 256, (1, 2, 3, side, side), dtype=torch.uint8))
    queries = config.query_decoder.num_queries
    fine = -(-side // 4)
    assert prediction.mask_logits.shape == (1, queries, 2, fine, fine)
    for tensor in (prediction.class_logits, prediction.mask_logits, prediction.queries):
        assert torch.isfinite(tensor).all()
    back = to_theirs(conversion.weights, layout=read_layout(state))
    assert back.keys() == state.keys()
    assert all(back[key].dtype == tensor.dtype and torch.equal(back[key], tensor) for key, tensor in state.items())
