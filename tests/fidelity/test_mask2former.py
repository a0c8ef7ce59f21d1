"""Mask2Former's decoders, on frames and on clips, equal the public code through our own name tables."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from model.converters.mask2former import (
    DETECTRON2_QUERY_DECODER,
    MMDET_DEFORMABLE,
    MMDET_PIXEL_DECODER,
    MMDET_QUERY_DECODER,
    detectron2_pixel_decoder,
)
from model.converters.rename import load_strict, nested, rename
from model.layers.axial_trajectory import TrajectoryBranch, track_levels
from model.layers.deformable_attention import DeformableAttention
from model.pixel_decoders.mask2former import (
    DeformableTrajectoryConfig,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderConfig,
)
from model.query_decoders.mask2former import Mask2FormerDecoderConfig, MaskedAttentionDecoder
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled

FEATURES = ("res2", "res3", "res4", "res5")
TRAJECTORIES = "MultiScaleDeformableAxialTrajectoryAttention"
PRE_NORM = ["norm", "cross_attn", "norm", "self_attn", "norm", "ffn"]
POST_NORM = ["cross_attn", "norm", "self_attn", "norm", "ffn", "norm"]


def frame_pixel_decoder(case: Case) -> None:
    a = case.arguments
    stride = {name: a["input_shape"][name][1] for name in FEATURES}
    strides = tuple(stride[name] for name in a["transformer_in_features"])
    config = Mask2FormerPixelDecoderConfig(
        dim=a["conv_dim"], embedding=a["mask_dim"], heads=a["transformer_nheads"], ffn=a["transformer_dim_feedforward"],
        layers=a["transformer_enc_layers"], dropout=a["transformer_dropout"], strides=strides,
        finest=a["common_stride"], fuse_norm={"GN": "gn", "": None}[a["norm"]])
    decoder = Mask2FormerPixelDecoder(config, channels=[a["input_shape"][name][0] for name in FEATURES]).eval()
    load_strict(decoder, rename(case.state, detectron2_pixel_decoder(finer=len(decoder.finer))))
    decoded = decoder([case.inputs[name] for name in FEATURES], frames=1)
    assert_close_to(case, "mask_features", decoded.pixel_features)
    assert_close_to(case, "finest_feature", decoded.maps[-1])
    for index, one in enumerate(decoded.maps[:3]):
        assert_close_to(case, f"multi_scale.{index}", one)


def frame_query_decoder(case: Case) -> None:
    a = case.arguments["module"]
    assert a["mask_classification"], "a decoder without classes is no segmenter"
    maps = [case.inputs[f"x.{index}"] for index in range(len(case.inputs) - 1)]
    config = Mask2FormerDecoderConfig(
        num_queries=a["num_queries"], dim=a["hidden_dim"], heads=a["nheads"], ffn=a["dim_feedforward"],
        layers=a["dec_layers"], levels=len(maps), positions="frame", pre_norm=a["pre_norm"],
        project_maps=a["enforce_input_project"])
    decoder = MaskedAttentionDecoder(config, channels=a["in_channels"], embedding=a["mask_dim"],
                                     num_classes=a["num_classes"]).eval()
    load_strict(decoder, rename(case.state, DETECTRON2_QUERY_DECODER))
    layers = decoder(maps, rearrange(case.inputs["mask_features"], "b d h w -> b d 1 h w"), supervise=True)
    for name, layer in zip([*(f"aux_outputs.{index}." for index in range(len(layers) - 1)), ""], layers, strict=True):
        assert_close_to(case, f"{name}pred_logits", layer.class_logits)
        assert_close_to(case, f"{name}pred_masks", layer.mask_logits[:, :, 0])
    read = a["vita_last_layer_num"] if case.arguments["training"] else 1
    assert_close_to(case, "frame_queries", torch.stack([decoder.norm(layer.queries) for layer in layers[-read:]]))


def mmdet_pixel_decoder(config, *, in_channels, feat_channels, out_channels) -> Mask2FormerPixelDecoder:
    """The decoder an mmdetection config describes."""
    assert config["type"] == "MSDeformAttnPixelDecoder"
    assert config["norm_cfg"] == {"type": "GN", "num_groups": 32}
    assert config["act_cfg"] == {"type": "ReLU"}
    assert config["positional_encoding"] == {"type": "SinePositionalEncoding", "num_feats": feat_channels // 2,
                                             "normalize": True}
    layer = config["encoder"]["transformerlayers"]
    attention, ffn = layer["attn_cfgs"], layer["ffn_cfgs"]
    assert layer["operation_order"] == ["self_attn", "norm", "ffn", "norm"]
    assert attention["embed_dims"] == ffn["embed_dims"] == feat_channels
    assert attention["dropout"] == ffn["ffn_drop"]
    strides = (8, 16, 32) if attention["num_levels"] == 3 else (16, 32)
    decoder = Mask2FormerPixelDecoderConfig(
        dim=feat_channels, embedding=out_channels, heads=attention["num_heads"], points=attention["num_points"],
        ffn=ffn["feedforward_channels"], layers=config["encoder"]["num_layers"], dropout=attention["dropout"],
        strides=strides)
    return Mask2FormerPixelDecoder(decoder, channels=in_channels,
                                   within_clip=trajectories(attention, strides=strides)).eval()


def trajectories(attention, *, strides) -> DeformableTrajectoryConfig | None:
    """What an mmdetection attention says about frames meeting; the reference fixes 8 heads."""
    if attention.get("type", TRAJECTORIES) != TRAJECTORIES:
        return None
    return DeformableTrajectoryConfig(
        layers=attention["num_temporal_layers"], ffn=attention["num_temporal_dim"], heads=8,
        strides=strides[-attention["num_temporal_levels"]:], residual_dropout=attention["attn_drop"],
        scale=1e-6 if attention["skip_connect"] else None)


def clip_pixel_decoder(case: Case) -> None:
    a = case.arguments
    decoder = mmdet_pixel_decoder(a["config"], **{name: a[name] for name in
                                                  ("in_channels", "feat_channels", "out_channels")})
    load_strict(decoder, rename(case.state, MMDET_PIXEL_DECODER))
    maps, frames = [case.inputs[name] for name in FEATURES], a["num_frames"]
    attention: dict[str, torch.Tensor] = {}
    for decoded in (decoder(maps, frames=frames), decoder(maps, frames=frames, attention=attention)):
        assert_close_to(case, "mask_features", decoded.pixel_features)
        for index, one in enumerate(decoded.maps[:a["config"]["num_outs"]]):
            assert_close_to(case, f"multi_scale.{index}", one)
    assert bool(attention) == bool(decoder.trajectories)


def trajectory_attention(case: Case) -> None:
    """One deformable attention with trajectory attention inside and the identity around it."""
    a = case.arguments
    shapes = [tuple(size) for size in case.inputs["spatial_shapes"].tolist()]
    strides = (32, 16, 8, 4)[:a["num_levels"]]
    attention = DeformableAttention(a["embed_dims"], heads=a["num_heads"], levels=a["num_levels"],
                                    points=a["num_points"])
    config = trajectories(a, strides=strides[::-1])
    branch = TrajectoryBranch(a["embed_dims"], start=config.scale, layers=config.layers, heads=config.heads,
                              ffn=config.ffn, dropout=a["dropout"], residual_dropout=config.residual_dropout)
    both = torch.nn.ModuleDict({"attention": attention, "branch": branch}).eval()
    ours = rename({f"layers.0.attentions.0.{name}": tensor for name, tensor in case.state.items()},
                  (*nested(MMDET_DEFORMABLE, "", ""),))
    load_strict(both, {name.replace("trajectories.0.", "branch.").replace("layers.0.attention.", "attention."): tensor
                       for name, tensor in ours.items()})
    positions = {stride: case.inputs[f"query_pos3d.{index}"][0]
                 for index, stride in enumerate(strides[:a["num_temporal_levels"]])}
    frames = len(positions[strides[0]])
    queries, position = (case.inputs[name] if a["batch_first"] else rearrange(case.inputs[name], "n b c -> b n c")
                         for name in ("query", "query_pos"))
    out = queries + attention(
        queries + position, reference=case.inputs["reference_points"], memory=queries, shapes=shapes,
        padding=case.inputs.get("key_padding_mask"),
        refine=lambda x: track_levels(branch, x, shapes, strides=strides, positions=positions, frames=frames))
    assert_close_to(case, "out", out if a["batch_first"] else rearrange(out, "b n c -> n b c"))


def tube_head(case: Case) -> None:
    assert case.arguments["kind"] == "tube", "other heads of the reference are losses around this one"
    a, (height, width) = case.arguments["head"], case.arguments["image_size"]
    decoder, layer = a["transformer_decoder"], a["transformer_decoder"]["transformerlayers"]
    attention, ffn, order = layer["attn_cfgs"], layer["ffn_cfgs"], layer["operation_order"]
    assert a["strides"] == [4, 8, 16, 32]
    assert order in (PRE_NORM, POST_NORM)
    assert attention["attn_drop"] == attention["proj_drop"] == ffn["ffn_drop"] == 0
    assert a["positional_encoding"] == {"type": "SinePositionalEncoding3D", "num_feats": attention["embed_dims"] // 2,
                                        "normalize": True}
    pixel_decoder = mmdet_pixel_decoder(a["pixel_decoder"], in_channels=a["in_channels"],
                                        feat_channels=a["feat_channels"], out_channels=a["out_channels"])
    query_decoder = MaskedAttentionDecoder(
        Mask2FormerDecoderConfig(
            num_queries=a["num_queries"], dim=attention["embed_dims"], heads=attention["num_heads"],
            ffn=ffn["feedforward_channels"], layers=decoder["num_layers"], levels=a["num_transformer_feat_level"],
            pre_norm=order == PRE_NORM, project_maps=a["enforce_decoder_input_project"]),
        channels=a["feat_channels"], embedding=a["out_channels"],
        num_classes=a["num_things_classes"] + a["num_stuff_classes"]).eval()
    both = torch.nn.ModuleDict({"pixel_decoder": pixel_decoder, "query_decoder": query_decoder})
    load_strict(both, rename(case.state, (*nested(MMDET_PIXEL_DECODER, r"pixel_decoder\.", "pixel_decoder."),
                                          *nested(MMDET_QUERY_DECODER, "", "query_decoder."))))
    maps, frames = [case.inputs[name] for name in FEATURES], case.arguments["num_frames"]
    assert maps[0].shape[-2:] == (-(-height // 4), -(-width // 4))
    decoded = pixel_decoder(maps, frames=frames)
    layers = query_decoder(decoded.maps, rearrange(decoded.pixel_features, "(b t) d h w -> b d t h w", t=frames),
                           supervise=True)
    for index, prediction in enumerate(layers):
        assert_close_to(case, f"cls.{index}", prediction.class_logits)
        assert_close_to(case, f"masks.{index}", rearrange(prediction.mask_logits, "b n t h w -> b t n h w"))
    assert_close_to(case, "query", layers[-1].queries)


PROCEDURES = {
    "m2f_pixel_decoder": frame_pixel_decoder, "m2f_frame_decoder": frame_query_decoder,
    "tl_pixel_decoder": clip_pixel_decoder, "tl_trajectory_deform": trajectory_attention, "tl_tube_head": tube_head,
}
FAMILIES = ("mask2former_pixel_decoder", "mask2former_frame_decoder", "tubelink_pixel_decoder", "tubelink_tube_decoder")


@pytest.mark.parametrize("path", [path for family in FAMILIES for path in cases(family)],
                         ids=lambda path: f"{path.parent.name}-{case_id(path)}")
@torch.no_grad()
def test_decoders_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure not in PROCEDURES:
            raise unhandled(case)
        PROCEDURES[case.procedure](case)
