"""Tube-Link's decoders, with and without MaXTron's within-clip tracking, equal the public code.

Cases carry configurations of mmdetection. What has no part in the numbers of an evaluation is set aside by name; any
other entry is honoured, or refused where ours knows one value only.
"""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from model.converters import mask2former as tables
from model.converters.rename import load_strict, nested, rename
from model.layers.axial_trajectory import TrajectoryBranch, track_levels
from model.layers.deformable_attention import DeformableAttention
from model.pixel_decoders.mask2former import (
    DeformableTrajectoryConfig,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderConfig,
)
from model.query_decoders.mask2former import Mask2FormerDecoderConfig, MaskedAttentionDecoder
from tests.fidelity.cases import Case, Ledger, assert_close_to, case_id, cases, load_case, unhandled

FEATURES = ("res2", "res3", "res4", "res5")
FINE_TO_COARSE = (4, 8, 16, 32)
TRAJECTORIES = "MultiScaleDeformableAxialTrajectoryAttention"
PRE_NORM = ["norm", "cross_attn", "norm", "self_attn", "norm", "ffn"]
POST_NORM = ["cross_attn", "norm", "self_attn", "norm", "ffn", "norm"]
POSITIONS = {"SinePositionalEncoding3D": "clip", "SinePositionalEncoding": "frame"}


def check_type(config: Ledger, name: str) -> None:
    """Refuse another building block than the one we have. How it starts and drops has no part in evaluation."""
    assert config["type"] == name
    config.set_aside("init_cfg", "dropout_layer")


def check_feed_forward(config: Ledger, *, dim: int) -> None:
    """mmdetection's `FFN` is ours with two layers, ReLU and a residual."""
    config.set_aside("type", "ffn_drop", "dropout_layer", "init_cfg")
    assert config["embed_dims"] == dim
    assert config["num_fcs"] == 2
    assert config.get("add_identity", True)
    check_relu(config["act_cfg"])


def check_relu(config: Ledger) -> None:
    config.set_aside("inplace")
    check_type(config, "ReLU")


def mmdet_pixel_decoder(config: Ledger, *, in_channels, feat_channels, out_channels) -> Mask2FormerPixelDecoder:
    """The decoder an mmdetection config describes."""
    check_type(config, "MSDeformAttnPixelDecoder")
    assert config["norm_cfg"] == {"type": "GN", "num_groups": 32}
    check_relu(config["act_cfg"])
    assert config["positional_encoding"] == {"type": "SinePositionalEncoding", "num_feats": feat_channels // 2,
                                             "normalize": True}
    check_type(encoder := config["encoder"], "DetrTransformerEncoder")
    check_type(layer := encoder["transformerlayers"], "BaseTransformerLayer")
    attention = layer["attn_cfgs"]
    ffn = layer["ffn_cfgs"]
    assert layer["operation_order"] == ["self_attn", "norm", "ffn", "norm"]
    assert attention["type"] in (TRAJECTORIES, "MultiScaleDeformableAttention")
    assert attention["embed_dims"] == feat_channels
    assert not attention["batch_first"], "the encoder gives its layers sequences first"
    attention.set_aside("im2col_step", "norm_cfg", "init_cfg", "dropout")
    check_feed_forward(ffn, dim=feat_channels)
    strides = FINE_TO_COARSE[-attention["num_levels"]:]
    decoder = Mask2FormerPixelDecoderConfig(
        dim=feat_channels, embedding=out_channels, heads=attention["num_heads"], points=attention["num_points"],
        ffn=ffn["feedforward_channels"], layers=encoder["num_layers"], strides=strides)
    within_clip = trajectories(attention, strides=strides) if attention["type"] == TRAJECTORIES else None
    return Mask2FormerPixelDecoder(decoder, channels=in_channels, within_clip=within_clip).eval()


def trajectories(attention: Ledger, *, strides) -> DeformableTrajectoryConfig:
    """What an attention says about frames meeting; the reference fixes 8 heads. strides: fine to coarse."""
    attention.set_aside("attn_drop", "dropout")
    return DeformableTrajectoryConfig(
        layers=attention["num_temporal_layers"], ffn=attention["num_temporal_dim"], heads=8,
        strides=strides[-attention["num_temporal_levels"]:], scale=1e-6 if attention["skip_connect"] else None)


def pixel_decoder(case: Case) -> None:
    a = case.arguments
    decoder = mmdet_pixel_decoder(a["config"], **{name: a[name] for name in
                                                  ("in_channels", "feat_channels", "out_channels")})
    load_strict(decoder, rename(case.state, tables.mmdet_pixel_decoder()))
    maps = [case.inputs[name] for name in FEATURES]
    frames = a["num_frames"]
    attention: dict[str, torch.Tensor] = {}
    for decoded in (decoder(maps, frames=frames), decoder(maps, frames=frames, attention=attention)):
        assert_close_to(case, "mask_features", decoded.pixel_features)
        for index, one in enumerate(decoded.maps[:a["config"]["num_outs"]]):
            assert_close_to(case, f"multi_scale.{index}", one)
    assert bool(attention) == bool(decoder.trajectories)


def trajectory_attention(case: Case) -> None:
    """One deformable attention with trajectory attention inside and the identity around it."""
    a = case.arguments
    batch_first = case.arguments["batch_first"]
    shapes = [tuple(size) for size in case.inputs["spatial_shapes"].tolist()]
    strides = FINE_TO_COARSE[::-1][:a["num_levels"]]
    attention = DeformableAttention(a["embed_dims"], heads=a["num_heads"], levels=a["num_levels"],
                                    points=a["num_points"])
    config = trajectories(a, strides=strides[::-1])
    branch = TrajectoryBranch(a["embed_dims"], start=config.scale, layers=config.layers, heads=config.heads,
                              ffn=config.ffn)
    both = torch.nn.ModuleDict({"attention": attention, "branch": branch}).eval()
    ours = rename({f"layers.0.attentions.0.{name}": tensor for name, tensor in case.state.items()},
                  tables.mmdet_deformable())
    load_strict(both, {name.replace("trajectories.0.", "branch.").replace("layers.0.attention.", "attention."): tensor
                       for name, tensor in ours.items()})
    positions = {stride: case.inputs[f"query_pos3d.{index}"]
                 for index, stride in enumerate(strides[:a["num_temporal_levels"]])}
    frames = positions[strides[0]].shape[1]
    given = {name: case.inputs[name] if batch_first else rearrange(case.inputs[name], "n b c -> b n c")
             for name in ("query", "query_pos", "value", "identity") if name in case.inputs}
    query = given["query"]
    out = given.get("identity", query) + attention(
        query + given.get("query_pos", 0), reference=case.inputs["reference_points"],
        memory=given.get("value", query), shapes=shapes, padding=case.inputs.get("key_padding_mask"),
        refine=lambda x: track_levels(branch, x, shapes, strides=strides, positions=positions, frames=frames))
    assert_close_to(case, "out", out if batch_first else rearrange(out, "b n c -> n b c"))


def mmdet_query_decoder(head: Ledger) -> MaskedAttentionDecoder:
    """The decoder an mmdetection head describes."""
    dim = head["feat_channels"]
    decoder = head["transformer_decoder"]
    check_type(decoder, "DetrTransformerDecoder")
    check_type(layer := decoder["transformerlayers"], "DetrTransformerDecoderLayer")
    attention = layer["attn_cfgs"]
    ffn = layer["ffn_cfgs"]
    order = layer["operation_order"]
    check_type(attention, "MultiheadAttention")
    check_feed_forward(ffn, dim=dim)
    assert decoder["return_intermediate"]
    assert order in (PRE_NORM, POST_NORM)
    assert attention["embed_dims"] == dim
    assert not attention["batch_first"], "the head gives its layers sequences first"
    attention.set_aside("attn_drop", "proj_drop")
    positions = head["positional_encoding"]
    assert (positions["num_feats"], positions["normalize"]) == (dim // 2, True)
    width = ffn["feedforward_channels"]
    return MaskedAttentionDecoder(
        Mask2FormerDecoderConfig(
            num_queries=head["num_queries"], dim=dim, heads=attention["num_heads"],
            ffn=layer.get("feedforward_channels", width),       # an older spelling, which wins
            layers=decoder["num_layers"], levels=head["num_transformer_feat_level"],
            positions=POSITIONS[positions["type"]], pre_norm=order == PRE_NORM,
            project_maps=head["enforce_decoder_input_project"]),
        channels=dim, embedding=head["out_channels"],
        num_classes=head["num_things_classes"] + head["num_stuff_classes"]).eval()


def tube_head(case: Case) -> None:
    """The heads of the reference (argument `kind`) differ in their losses alone, which no output here shows."""
    case.arguments.set_aside("kind")
    head = case.arguments["head"]
    (height, width) = case.arguments["image_size"]
    head.set_aside("loss_cls", "loss_mask", "loss_dice", "train_num_frames", "test_num_frames", "train_cfg", "test_cfg",
                   "init_cfg")
    assert head["strides"] == list(FINE_TO_COARSE)
    assert head["pixel_decoder"]["num_outs"] >= head["num_transformer_feat_level"]
    both = torch.nn.ModuleDict({
        "pixel_decoder": mmdet_pixel_decoder(head["pixel_decoder"], in_channels=head["in_channels"],
                                             feat_channels=head["feat_channels"], out_channels=head["out_channels"]),
        "query_decoder": mmdet_query_decoder(head)})
    load_strict(both, rename(case.state, (*nested(tables.mmdet_pixel_decoder(), r"pixel_decoder\.", "pixel_decoder."),
                                          *nested(tables.mmdet_query_decoder(), "", "query_decoder."))))
    maps = [case.inputs[name] for name in FEATURES]
    frames = case.arguments["num_frames"]
    assert maps[0].shape[-2:] == (-(-height // 4), -(-width // 4))
    decoded = both["pixel_decoder"](maps, frames=frames)
    pixel_features = rearrange(decoded.pixel_features, "(b t) d h w -> b d t h w", t=frames)
    layers = both["query_decoder"](decoded.maps, pixel_features, supervise=True)
    for index, prediction in enumerate(layers):
        assert_close_to(case, f"cls.{index}", prediction.class_logits)
        assert_close_to(case, f"masks.{index}", rearrange(prediction.mask_logits, "b n t h w -> b t n h w"))
    assert_close_to(case, "query", layers[-1].queries)


PROCEDURES = {"tl_pixel_decoder": pixel_decoder, "tl_trajectory_deform": trajectory_attention,
              "tl_tube_head": tube_head}
FAMILIES = ("tubelink_pixel_decoder", "tubelink_tube_decoder")


@pytest.mark.parametrize("path", [path for family in FAMILIES for path in cases(family)],
                         ids=lambda path: f"{path.parent.name}-{case_id(path)}")
@torch.no_grad()
def test_decoders_of_clips_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure not in PROCEDURES:
            raise unhandled(case)
        PROCEDURES[case.procedure](case)
