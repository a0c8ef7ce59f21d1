"""Trajectory attention, its layers and stacks equal the public code, through our own name table."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from model.converters.maxtron_video_kmax import TRAJECTORY_LAYER, TRAJECTORY_STACK
from model.converters.rename import load_strict, rename
from model.layers.axial_trajectory import TrajectoryLayer, TrajectoryStack
from model.layers.trajectory_attention import TrajectoryAttention
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled

KINDS = {"axial-trajectory": "axial", "trajectory": "full"}


def attention(case: Case) -> None:
    module = TrajectoryAttention(case.arguments["dim"], case.arguments["num_heads"]).eval()
    load_strict(module, case.state)
    inputs = [case.inputs[name] for name in ("query", "key", "value")]
    frames = case.arguments["num_frames"]
    maps: dict[str, torch.Tensor] = {}
    result = module(*inputs, frames=frames, attention=maps)
    assert_close_to(case, "out", result)
    assert_close_to(case, "out", module(*inputs, frames=frames))
    assert_close_to(case, "space_attn", rearrange(maps["space"], "b heads n t s -> (b heads) n t s"))


def layer(case: Case) -> None:
    a = case.arguments
    module = TrajectoryLayer(a["d_model"], heads=a["n_heads"], ffn=a["d_ffn"], kind=a["kind"],
                             activation=a["activation"])
    load_strict(module, rename(case.state, TRAJECTORY_LAYER))
    compare(case, module)


def stack(case: Case) -> None:
    a = case.arguments
    module = TrajectoryStack(a["d_model"], layers=a["num_temporal_layer"], heads=a["n_heads"], ffn=a["d_ffn"],
                             kind=KINDS[a["temporal_attn_type"]], activation=a["activation"])
    load_strict(module, rename(case.state, TRAJECTORY_STACK))
    compare(case, module)


def compare(case: Case, module: torch.nn.Module) -> None:
    """Both ways through a layer or stack: with the maps, and by the fast path."""
    module.eval()
    position = case.inputs["pos"]
    sizes = dict(zip("bthw", position.shape))
    x = rearrange(case.inputs["src"], "(b t) (h w) c -> b t h w c", **sizes)
    maps: dict[str, torch.Tensor] = {}
    result = module(x, position, attention=maps)
    for one in (result, module(x, position)):
        assert_close_to(case, "out", rearrange(one, "b t h w c -> (b t) (h w) c"))
    for name in ("height", "width"):
        if f"{name}_attn" in case.outputs:
            assert_close_to(case, f"{name}_attn", rearrange(maps[name], "b heads n t s -> (b heads) n t s"))


@pytest.mark.parametrize("path", cases("trajectory_attention"), ids=case_id)
@torch.no_grad()
def test_trajectory_attention_equals_the_reference(path):
    with load_case(path) as case:
        match case.procedure:
            case "trajectory_attention":
                attention(case)
            case "trajectory_layer":
                layer(case)
            case "temporal_encoder":
                stack(case)
            case _:
                raise unhandled(case)
