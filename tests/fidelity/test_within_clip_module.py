"""The whole within-clip module of MaXTron on Video-kMaX equals the public code, through our own name table."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from model.converters.maxtron_video_kmax import WITHIN_CLIP
from model.converters.rename import load_strict, rename
from model.within_clip import WithinClip, WithinClipConfig
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled

KINDS = {"axial-trajectory": "axial", "trajectory": "full"}
STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


def within_clip(arguments) -> WithinClip:
    """The module a case describes. arguments: of the reference's constructor."""
    blocks = arguments["transformer_num_stages"]
    # The reference swaps its two dropout rates on the way to the trajectory layers: model_facts section 2.3.
    config = WithinClipConfig(
        dim=arguments["transformer_conv_dims"], heads=arguments["transformer_nheads"],
        ffn=arguments["transformer_dim_feedforward"], blocks=blocks,
        spatial_layers_per_block=arguments["transformer_spatial_layers"] // blocks,
        trajectory_layers_per_block=arguments["transformer_temporal_layers"] // blocks,
        attention=KINDS[arguments["transformer_temporal_attn_type"]],
        strides=tuple(STRIDES[name] for name in arguments["transformer_spatial_in_features"]),
        trajectory_strides=tuple(STRIDES[name] for name in arguments["transformer_temporal_in_features"]),
        dropout=arguments["transformer_dropout"], attention_dropout=arguments["transformer_dropout"],
        residual_dropout=arguments["transformer_attn_drop"])
    channels = {STRIDES[name]: width for name, (width, _) in arguments["input_shape"].items()}
    return WithinClip(config, channels=[channels.get(stride, 1) for stride in STRIDES.values()]).eval()


def compare(case: Case) -> None:
    module = within_clip(case.arguments)
    load_strict(module, rename(case.state, WITHIN_CLIP))
    absent = torch.zeros(len(next(iter(case.inputs.values()))), 1, 1, 1)
    maps = [case.inputs.get(name, absent) for name in STRIDES]
    # in evaluation the reference makes one clip of all frames it gets; cross-clip training alone splits them
    splits = case.arguments["cross_clip_training"]
    length = case.arguments["num_clip_frames"]
    frames = length if splits else len(absent)
    attention: dict[str, torch.Tensor] = {}
    with_attention = module(maps, frames=frames, attention=attention)
    for result in (with_attention, module(maps, frames=frames)):
        for name, one in zip(STRIDES, result):
            if f"features.{name}" in case.outputs:
                assert_close_to(case, f"features.{name}", one)
    finest = min(module.trajectory_strides, default=None)
    for name in ("height", "width"):
        if f"{name}_attn" in case.outputs:
            assert_close_to(case, f"{name}_attn",
                            rearrange(attention[f"stride{finest}.{name}"], "b heads n t s -> (b heads) n t s"))


@pytest.mark.parametrize("path", cases("within_clip_module"), ids=case_id)
@torch.no_grad()
def test_within_clip_tracking_equals_the_reference(path):
    with load_case(path) as case:
        match case.procedure:
            case "within_clip":
                compare(case)
            case _:
                raise unhandled(case)
