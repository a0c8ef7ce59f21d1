"""Checkpoints of kMaX-DeepLab and MaXTron: real values, spellings, variants, and what is refused.

That every weight has its place is what `tests/fidelity/test_state_dict_layouts.py` says.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from model.backbone import BackboneConfig
from model.converters.layouts import HEAD, BackboneLayout, KMaxLayout, read_layout
from model.converters.official import has_head, to_ours, to_theirs
from model.cross_clip.maxtron import MaXTronHead, MaXTronHeadConfig
from model.segmenters.video_kmax import VideoKMax, VideoKMaxConfig
from model.semantic_head import SemanticHeadConfig
from model.within_clip import WithinClipConfig
from tests.model.converters.recorded_layouts import check_it_runs_and_comes_back, random_state, shapes_only

COCO = "kmax_r50_coco"
OFFLINE = "maxtron_kmax_cross_clip_r50_vipseg"
NEAR_ONLINE = "maxtron_kmax_within_clip_r50_vipseg"
CONVNEXT = "maxtron_kmax_within_clip_convnext_large_vipseg"
LARGE = {"within_clip": WithinClipConfig(trajectory_layers_per_block=3), "backbone": "convnext_large"}
CONFIGS = {      # name of the layout -> what differs from Video-kMaX R50 on VIPSeg
    COCO: {"num_classes": 133},
    NEAR_ONLINE: {"within_clip": WithinClipConfig()},
    OFFLINE: {"within_clip": WithinClipConfig(), "semantic_head": None},
    CONVNEXT: LARGE,
}


def config_of(*, backbone: str = "resnet50", num_classes: int = 124, **changes) -> VideoKMaxConfig:
    return VideoKMaxConfig(num_classes=num_classes, backbone=BackboneConfig(name=backbone), **changes)


def own_weights(config: VideoKMaxConfig, *, head: bool = False) -> dict[str, Tensor]:
    with torch.device("meta"):
        weights = VideoKMax(config).state_dict()
        if head:
            official = MaXTronHead(MaXTronHeadConfig(num_classes=config.num_classes, start="official")).state_dict()
            weights |= {f"{HEAD}{name}": tensor for name, tensor in official.items()}
    return weights


def convert(state: dict[str, Tensor], own: dict[str, Tensor]):
    return to_ours(state, layout=read_layout(state), own=own)


def check_real_weights(name: str) -> None:
    state = random_state(name)
    config = config_of(**CONFIGS[name])
    conversion = convert(state, own_weights(config, head=has_head(state)))
    check_it_runs_and_comes_back(state, conversion, config, side=33)


def test_an_offline_checkpoint_of_random_values_runs_and_comes_back():
    check_real_weights(OFFLINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [COCO, NEAR_ONLINE, CONVNEXT])
def test_checkpoints_of_random_values_run_and_come_back(name):
    check_real_weights(name)


def test_kmax_with_deformable_attention_only_is_near_online_without_its_attention_in_time():
    state = {key: tensor for key, tensor in shapes_only(NEAR_ONLINE).items()
             if ".temporal_layers." not in key and "level_embed_3d" not in key}
    deformable = convert(state, own_weights(config_of(within_clip=WithinClipConfig(attention=None))))
    assert not deformable.unused
    assert not deformable.from_scratch
    near_online = convert(state, own_weights(config_of(within_clip=WithinClipConfig())))
    assert near_online.from_scratch
    assert all(key.startswith(("within_clip.trajectory_stacks.", "within_clip.clip_level_embedding"))
               for key in near_online.from_scratch)


def test_convnext_v2_has_response_norms_of_four_axes_and_no_layer_scales():
    state = shapes_only(CONVNEXT)
    for key in [key for key in state if key.endswith(".gamma")]:
        hidden = state[key.replace(".gamma", ".pwconv1.bias")].numel()
        for part in ("gamma", "beta"):
            state[key.replace(".gamma", f".grn.{part}")] = torch.empty(1, 1, 1, hidden, device="meta")
        del state[key]
    conversion = convert(state, own_weights(config_of(**{**LARGE, "backbone": "convnextv2_large"})))
    assert not conversion.unused
    assert not conversion.from_scratch
    back = to_theirs(conversion.weights, layout=read_layout(state))
    assert {key: tensor.shape for key, tensor in back.items()} == {key: tensor.shape for key, tensor in state.items()}


def test_coco_class_rows_stay_behind_and_everything_else_is_taken():
    """_predcitor in the file, 134 rows for 125 of ours, within-clip tracking that the file lacks."""
    state = shapes_only(COCO)
    assert read_layout(state).predictor == "_predcitor"
    conversion = convert(state, own_weights(config_of(within_clip=WithinClipConfig())))
    assert len(conversion.unused) == 2 * 8      # weight and bias of six layers, the final predictor, the semantic head
    assert set(conversion.unused.values()) == {"134 class rows, the recipe's model has 125"}
    rows = [key for key in conversion.from_scratch if not key.startswith("within_clip.")]
    assert len(rows) == len(conversion.unused)
    assert all("class_head.conv" in key or key.startswith("semantic_head.classify.conv") for key in rows)


@pytest.mark.parametrize("respell", [lambda key: f"module.{key}", lambda key: key.replace("sem_seg_head.wc_", "wc_"),
                                     lambda key: key.replace("wc_module.", ""),
                                     lambda key: key.replace("_predictor._", "_predcitor._")],
                         ids=["ddp", "top-level-wc", "no-wc", "misspelt"])
def test_known_spellings_convert_and_come_back_as_they_were(respell):
    straight = shapes_only(NEAR_ONLINE)
    state = {re.sub("auxiliary_semantic_predcitor", "auxiliary_semantic_predictor", respell(key)): tensor
             for key, tensor in straight.items()}
    assert state.keys() != straight.keys()
    own = own_weights(config_of(within_clip=WithinClipConfig()))
    conversion = convert(state, own)
    assert conversion.weights == convert(straight, own).weights
    assert to_theirs(conversion.weights, layout=read_layout(state)).keys() == state.keys()


def test_constants_of_a_run_are_reported_and_left_behind():
    state = shapes_only(NEAR_ONLINE) | {"criterion.empty_weight": torch.ones(125), "pixel_mean": torch.ones(3, 1, 1)}
    conversion = convert(state, own_weights(config_of(within_clip=WithinClipConfig())))
    assert list(conversion.unused) == ["criterion.empty_weight", "pixel_mean"]


def test_a_recipe_without_the_semantic_head_leaves_it_behind():
    state = shapes_only(NEAR_ONLINE)
    conversion = convert(state, own_weights(config_of(within_clip=WithinClipConfig(), semantic_head=None)))
    assert conversion.unused.keys() == {key for key in state if "_auxiliary_semantic_predictor" in key}


def test_counters_a_file_does_not_keep_start_at_zero():
    state = {key: tensor for key, tensor in shapes_only(NEAR_ONLINE).items() if "num_batches_tracked" not in key}
    conversion = convert(state, own_weights(config_of(within_clip=WithinClipConfig())))
    assert all(key.endswith("num_batches_tracked") for key in conversion.from_scratch)


@pytest.mark.parametrize(("changes", "complaint"), [
    ({}, r"186 weights do not fit .* has no within_clip\."),
    ({"within_clip": WithinClipConfig(trajectory_layers_per_block=1)}, "has no within_clip.trajectory_stacks.0.layers"),
    ({"within_clip": WithinClipConfig(), "backbone": "convnext_tiny"}, r"has no backbone\.network\.conv1\.weight"),
    ({"within_clip": WithinClipConfig(ffn=512)}, r"shape \(1024, 256\), the recipe's within_clip\..* has \(512, 256\)"),
    ({"within_clip": WithinClipConfig(), "semantic_head": SemanticHeadConfig(width=128)}, "semantic_head"),
], ids=["no-within-clip", "fewer-layers", "other-backbone", "other-width", "other-semantic-head"])
def test_a_recipe_of_another_network_is_refused_with_the_weights_that_do_not_fit(changes, complaint):
    with pytest.raises(ValueError, match=re.compile(complaint, re.DOTALL)):
        convert(shapes_only(NEAR_ONLINE), own_weights(config_of(**changes)))


def test_a_checkpoint_that_lacks_a_weight_it_must_have_is_refused():
    state = shapes_only(NEAR_ONLINE)
    del state["sem_seg_head.predictor._cluster_centers.weight"]
    with pytest.raises(ValueError, match=r"our query_decoder\.initial_queries: not in the checkpoint"):
        convert(state, own_weights(config_of(within_clip=WithinClipConfig())))


def test_a_weight_nobody_knows_is_refused():
    state = shapes_only(NEAR_ONLINE) | {"sem_seg_head.predictor._extra.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=r"_extra\.weight: no such weight in the official models"):
        convert(state, own_weights(config_of(within_clip=WithinClipConfig())))


def test_a_file_without_a_backbone_is_not_recognised():
    with pytest.raises(ValueError, match="no known backbone among 1 weights"):
        read_layout(["linear.weight"])


def test_imagenet_weights_fill_the_backbone_alone_and_come_back_alone():
    state = {key.removeprefix("backbone."): tensor for key, tensor in shapes_only(COCO).items()
             if key.startswith("backbone.")} | {"stem.fc.weight": torch.ones(1000, 2048)}
    own = own_weights(config_of())
    conversion = convert(state, own)
    assert conversion.unused == {"stem.fc.weight": "the classifier of the pre-training"}
    assert conversion.from_scratch.keys() == {key for key in own if not key.startswith("backbone.")}
    layout = read_layout(state)
    assert layout == BackboneLayout(backbone="detectron2_resnet")
    assert to_theirs(dict(own), layout=layout).keys() == state.keys() - {"stem.fc.weight"}


def test_buffers_of_microsoft_s_swin_are_reported_and_left_behind():
    layout = BackboneLayout(backbone="swin")
    own = own_weights(config_of(backbone="swin_tiny_patch4_window7_224"))
    buffers = dict.fromkeys(("layers.0.blocks.1.attn_mask", "layers.0.blocks.1.attn.relative_position_index"),
                            torch.empty(4))
    state = to_theirs(own, layout=layout) | buffers | {"norm.weight": torch.ones(768), "head.bias": torch.ones(1000)}
    assert read_layout(state) == layout
    conversion = convert(state, own)
    assert conversion.unused == {**dict.fromkeys(buffers, "a constant that every run rebuilds"),
                                 **dict.fromkeys(("norm.weight", "head.bias"), "the classifier of the pre-training")}
    assert conversion.from_scratch.keys() == {key for key in own if not key.startswith("backbone.")}


def test_a_resnet_with_caffe_s_names_is_refused_with_the_file_to_take():
    with pytest.raises(ValueError, match=r"MSRA/R-50\.pkl.*take torchvision/R-50\.pkl"):
        read_layout(["conv1_w", "res2_0_branch2a_w", "res2_0_branch2a_bn_s"])


def test_a_head_of_ours_that_the_official_code_has_no_place_for_is_refused():
    head = MaXTronHead(MaXTronHeadConfig(num_classes=124, layers=1)).state_dict()      # starts near-online: has scales
    with pytest.raises(ValueError, match=r"head\.layers\.0\.attention\.scale"):
        to_theirs({f"{HEAD}{name}": tensor for name, tensor in head.items()},
                  layout=KMaxLayout(backbone="detectron2_resnet"))
