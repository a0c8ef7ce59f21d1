"""Checkpoints of Tube-Link and MaXTron on it, in mmdetection: real values, class rows, backbones, and what is refused.

That every weight has its place is what `tests/fidelity/test_state_dict_layouts.py` says.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from model.association.tube_linking import TubeLinkingConfig
from model.backbone import BackboneConfig
from model.converters.layouts import (
    HEAD,
    BackboneLayout,
    KMaxLayout,
    MmdetLayout,
    read_layout,
    restore_layout,
    usual_layout,
)
from model.converters.official import Conversion, to_ours, to_theirs
from model.cross_clip.tube_link import TubeLinkHead, TubeLinkHeadConfig
from model.pixel_decoders.mask2former import DeformableTrajectoryConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters.tube_link import TubeLink, TubeLinkConfig
from tests.model.converters.recorded_layouts import check_it_runs_and_comes_back, random_state, shapes_only

PANOPTIC = "tubelink_r50_vipseg"
INSTANCES = "tubelink_r50_ytvis21"
NEAR_ONLINE = "maxtron_tubelink_within_clip_r50_ytvis21"
OFFLINE = "maxtron_tubelink_cross_clip_r50_ytvis21"
CONFIGS = {
    PANOPTIC: TubeLinkConfig(num_classes=124, stuff_classes=tuple(range(58, 124)), linking=TubeLinkingConfig()),
    INSTANCES: TubeLinkConfig(num_classes=40),
    NEAR_ONLINE: TubeLinkConfig(num_classes=40, within_clip=DeformableTrajectoryConfig()),
    OFFLINE: TubeLinkConfig(num_classes=40, within_clip=DeformableTrajectoryConfig()),
}
HEADS = {OFFLINE: TubeLinkHeadConfig(num_classes=40, start="official")}


def own_weights(config: TubeLinkConfig, head: TubeLinkHeadConfig | None = None) -> dict[str, Tensor]:
    with torch.device("meta"):
        weights = TubeLink(config).state_dict()
        if head is not None:
            weights |= {f"{HEAD}{name}": tensor for name, tensor in TubeLinkHead(head).state_dict().items()}
    return weights


def convert(state: dict[str, Tensor], config: TubeLinkConfig, head: TubeLinkHeadConfig | None = None) -> Conversion:
    return to_ours(state, layout=read_layout(state), own=own_weights(config, head))


def check_real_weights(name: str) -> None:
    state = random_state(name)
    check_it_runs_and_comes_back(state, convert(state, CONFIGS[name], HEADS.get(name)), CONFIGS[name], side=32)


def test_an_offline_checkpoint_of_random_values_runs_and_comes_back():
    check_real_weights(OFFLINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [PANOPTIC, INSTANCES, NEAR_ONLINE])
def test_checkpoints_of_random_values_run_and_come_back(name):
    check_real_weights(name)


def test_the_heads_of_an_offline_checkpoint_serve_segmenter_and_cross_clip_head():
    conversion = convert(shapes_only(OFFLINE), CONFIGS[OFFLINE], HEADS[OFFLINE])
    for ours in ("norm.weight", "class_head.bias", "mask_head.4.weight"):
        assert conversion.weights[f"{HEAD}predictor.{ours}"] is conversion.weights[f"query_decoder.{ours}"]
    assert conversion.names["panoptic_head.cls_embed.bias"] == ("query_decoder.class_head.bias and "
                                                                "head.predictor.class_head.bias")


def test_a_head_trained_away_from_its_segmenter_has_no_place_in_their_checkpoint():
    weights = {"query_decoder.class_head.bias": torch.zeros(3), "head.predictor.class_head.bias": torch.zeros(3)}
    assert to_theirs(weights, layout=MmdetLayout(backbone="timm")).keys() == {"panoptic_head.cls_embed.bias"}
    weights["head.predictor.class_head.bias"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"head\.predictor\.class_head\.bias differ from the segmenter's"):
        to_theirs(weights, layout=MmdetLayout(backbone="timm"))


def test_class_rows_that_number_things_first_come_into_our_order_and_back():
    layout = MmdetLayout(backbone="timm", classes=(1, 3, 0, 2))       # of 4 classes, 0 and 2 are stuff
    state = {"panoptic_head.cls_embed.bias": torch.tensor([10.0, 11, 12, 13, 99])}
    own = {"query_decoder.class_head.bias": torch.empty(5, device="meta")}
    ours = to_ours(state, layout=layout, own=own).weights
    assert ours["query_decoder.class_head.bias"].tolist() == [12, 10, 13, 11, 99]
    assert torch.equal(to_theirs(ours, layout=layout)["panoptic_head.cls_embed.bias"], *state.values())


@pytest.mark.parametrize(("rows", "queries", "left_out"), [(81, 100, 2), (134, 200, 4)], ids=["instance", "panoptic"])
def test_coco_mask2former_starts_everything_but_class_rows_and_what_it_never_had(rows, queries, left_out):
    state = shapes_only(INSTANCES)
    for key in ("panoptic_head.cls_embed.weight", "panoptic_head.cls_embed.bias"):
        state[key] = state[key].new_empty(rows, *state[key].shape[1:])
    for key in ("panoptic_head.query_feat.weight", "panoptic_head.query_embed.weight"):
        state[key] = state[key].new_empty(queries, 256)
    config = replace(CONFIGS[NEAR_ONLINE], linking=TubeLinkingConfig())
    conversion = convert(state, config)
    assert len(conversion.unused) == left_out
    assert f"{rows} class rows, the recipe's model has 41" in conversion.unused.values()
    new = {key for key in conversion.from_scratch
           if not key.startswith(("pixel_decoder.trajectories.", "pixel_decoder.clip_level_embedding", "linking."))}
    assert len(new) == left_out
    assert all(key.startswith(("query_decoder.class_head.", "query_decoder.initial_queries",
                               "query_decoder.query_positions")) for key in new)


@pytest.mark.parametrize(("config", "complaint"), [
    (CONFIGS[INSTANCES], r"recipe's model has no pixel_decoder\.(trajectories|clip_level_embedding)"),
    (replace(CONFIGS[NEAR_ONLINE], backbone=BackboneConfig(name="resnet18")), r"recipe's model has no backbone\."),
    (replace(CONFIGS[NEAR_ONLINE], query_decoder=Mask2FormerDecoderConfig(ffn=1024)),
     r"shape \(2048, 256\), the recipe's query_decoder\.layers\.0\.ffn\.linear1\.weight has \(1024, 256\)"),
    (replace(CONFIGS[NEAR_ONLINE], query_decoder=Mask2FormerDecoderConfig(layers=10)),
     r"our query_decoder\.layers\.9\..*: not in the checkpoint"),
], ids=["no-within-clip", "other-backbone", "other-width", "more-layers"])
def test_a_recipe_of_another_network_is_refused_with_the_weights_that_do_not_fit(config, complaint):
    with pytest.raises(ValueError, match=complaint):
        convert(shapes_only(NEAR_ONLINE), config)


def swin() -> TubeLinkConfig:
    return TubeLinkConfig(num_classes=40, backbone=BackboneConfig(name="swin_tiny_patch4_window7_224",
                                                                  output_norms=True))


def test_swin_is_spelt_as_mmdetection_spells_it_and_comes_back():
    with torch.no_grad():
        segmenter = TubeLink(swin()).state_dict()
    layout = usual_layout(segmenter, family="mmdet")
    state = to_theirs(segmenter, layout=layout)
    assert {"backbone.patch_embed.projection.weight", "backbone.norm3.weight",
            "backbone.stages.2.blocks.5.attn.w_msa.qkv.bias", "backbone.stages.0.blocks.1.ffn.layers.0.0.weight",
            "backbone.stages.0.blocks.1.ffn.layers.1.bias",
            "backbone.stages.1.blocks.0.attn.w_msa.relative_position_bias_table",
            "backbone.stages.2.downsample.reduction.weight"} <= state.keys()
    index = {"backbone.stages.0.blocks.0.attn.w_msa.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
    assert read_layout(state) == layout
    conversion = convert(state | index, swin())
    assert conversion.unused == dict.fromkeys(index, "a constant that every run rebuilds")
    assert not conversion.from_scratch
    assert conversion.weights.keys() == segmenter.keys()
    assert all(torch.equal(conversion.weights[key], tensor) for key, tensor in segmenter.items())


def test_swin_merges_patches_as_mmdetection_does_with_the_converted_weights():
    """Their step down unfolds 2 x 2 windows, channels first, then norm and linear."""
    with torch.no_grad():
        segmenter = TubeLink(swin())
        merge = segmenter.backbone.network.layers_1.downsample
        torch.nn.init.normal_(merge.norm.weight)
        theirs = to_theirs(segmenter.state_dict(), layout=MmdetLayout(backbone="mmdet_swin"))
        x = torch.randn(1, 96, 4, 6)
        unfolded = rearrange(F.unfold(x, 2, stride=2), "b c n -> b n c")
        prefix = "backbone.stages.0.downsample."
        normed = F.layer_norm(unfolded, (384,), theirs[f"{prefix}norm.weight"], theirs[f"{prefix}norm.bias"])
        expected = F.linear(normed, theirs[f"{prefix}reduction.weight"])
        ours = merge(rearrange(x, "b c h w -> b h w c"))
    torch.testing.assert_close(rearrange(ours, "b h w c -> b (h w) c"), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layout", [BackboneLayout(backbone="timm"), MmdetLayout(backbone="mmdet_swin", classes=(1, 0)),
                                    KMaxLayout(backbone="convnext", predictor="_predcitor", prefix="module.")])
def test_a_layout_is_restored_from_the_card_of_a_model(layout):
    assert restore_layout(json.loads(json.dumps(asdict(layout)))) == layout
