"""Which parameters decay in each family, against the public rules written down plainly.

The rules: mmcv, `runner/optimizer/default_constructor.py` with the `paramwise_cfg` of the files that Tube-Link, MaXTron
on it and mmdetection's Mask2Former use; VITA, `train_net_vita.py`; MaXTron on Video-kMaX, `train_net_video.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from jobs.recipes import find_recipe
from jobs.training.freezing import freeze
from jobs.training.optimizer import parameter_groups
from model.joint import DetectorWithHead

Rule = Callable[[str, nn.Module], bool]      # (name, module that owns the parameter) -> whether it decays
PYTORCH_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)

# Keys of mmcv's `custom_keys` by our names: query_feat, query_embed and level_embed.
EMBEDDINGS = {"initial_queries": 0.0, "query_positions": 0.0, "query_decoder.level_embedding": 0.0}
FOR_RESNET = {"backbone": 1.0, **EMBEDDINGS}
FOR_SWIN = {**FOR_RESNET, "relative_position_bias_table": 0.0,
            **dict.fromkeys(("backbone.network.patch_embed.norm", "backbone.output_norms"), 0.0),
            **{f"backbone.network.layers_{stage}.blocks.{block}.norm": 0.0
               for stage in range(4) for block in range(18)},
            **{f"backbone.network.layers_{stage}.downsample.norm": 0.0 for stage in range(1, 4)}}


def mmcv(custom_keys: dict[str, float]) -> Rule:
    """The longest key in a name decides; without one, norm layers do not decay and all else does."""
    def decays(name: str, module: nn.Module) -> bool:
        keys = sorted((key for key in custom_keys if key in name), key=len)
        return bool(custom_keys[keys[-1]]) if keys else not isinstance(module, PYTORCH_NORMS)
    return decays


def detectron2(name: str, module: nn.Module) -> bool:
    """Norm layers, relative positions and what is an nn.Embedding there: queries, their positions, decoder levels."""
    embeddings = ("initial_queries", "query_positions", "query_decoder.level_embedding")
    return not (isinstance(module, PYTORCH_NORMS) or "relative_position_bias_table" in name
                or any(part in name for part in embeddings))


def kmax(*, convnext_v2: bool) -> Rule:
    """Names first; norm layers by class, and ConvNeXtV2's own layer norm is not in the list of classes."""
    def decays(name: str, module: nn.Module) -> bool:
        if "grn" in name:
            return name.endswith("bias")        # beta there; the weight is called gamma
        named = any(part in name for part in ("bias", "relative_", "initial_queries", "gamma"))
        is_norm = isinstance(module, PYTORCH_NORMS) or "Norm" in type(module).__name__
        return not (named or (is_norm and not (convnext_v2 and name.startswith("backbone."))))
    return decays


def aspp_norm_too(rule: Rule) -> Rule:
    """The norm inside temporal ASPP is of a class that mmcv does not know."""
    return lambda name, module: ".aspp.join." in name or rule(name, module)


STAGE_ONE = {
    "coco_kmax_msda_r50": kmax(convnext_v2=False), "coco_kmax_convnext_l": kmax(convnext_v2=False),
    "coco_kmax_msda_convnextv2_l": kmax(convnext_v2=True),
    "vipseg_video_kmax_convnextv2_l_near_online": kmax(convnext_v2=True),
    "vipseg_video_kmax_convnext_l_near_online": kmax(convnext_v2=False),
    "coco_mask2former_instance_r50": mmcv(FOR_RESNET), "coco_mask2former_panoptic_swin_b": mmcv(FOR_SWIN),
    "youtube_vis_2021_tube_link_r50": mmcv(FOR_RESNET), "youtube_vis_2021_tube_link_swin_l": mmcv(FOR_SWIN),
    "ovis_tube_link_r50_near_online": mmcv({**FOR_RESNET, ".stack.": 1.0}),      # temporal_layer
    "ovis_tube_link_swin_l_near_online": mmcv(FOR_SWIN),
    "vipseg_tube_link_r50": mmcv(FOR_RESNET), "vipseg_tube_link_swin_b": mmcv(FOR_RESNET),
    "vspw_tube_link_swin_l": mmcv(FOR_RESNET), "vipseg_vss_tube_link_swin_l": mmcv(FOR_RESNET),
    "youtube_vis_2019_vita_r50": detectron2, "ovis_vita_swin_l": detectron2,
    "coco_vita_r50": detectron2, "coco_vita_swin_l": detectron2,
}
STAGE_TWO = {
    "vipseg_video_kmax_r50_offline": kmax(convnext_v2=False), "ovis_tube_link_r50_offline": aspp_norm_too(
        mmcv(FOR_RESNET)), "youtube_vis_2021_tube_link_swin_l_offline": aspp_norm_too(mmcv(FOR_SWIN)),
    "youtube_vis_2019_vita_r50_frozen": detectron2,
}


def parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    for prefix, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                yield f"{prefix}.{leaf}", parameter, module


def compare(model: nn.Module, optimizer, rule: Rule) -> None:
    freeze(model, optimizer.frozen)
    decay = {id(parameter): group["weight_decay"] for group in parameter_groups(model, optimizer)
             for parameter in group["params"]}
    expected = {name: 0.05 * rule(name, module) for name, _, module in parameters(model)}
    assert {name: decay[id(parameter)] for name, parameter, _ in parameters(model)} == expected
    assert set(expected.values()) == {0.0, 0.05}


@pytest.mark.parametrize("name", STAGE_ONE)
def test_stage_one_decays_as_released(name):
    one = find_recipe(name).stage_one
    with torch.device("meta"):
        model = replace(one.segmenter, backbone=replace(one.segmenter.backbone, pretrained=False)).build()
        if one.joint is not None:
            model = DetectorWithHead(model, one.joint.head.build(), layers=one.joint.layers)
    compare(model, one.optimizer, STAGE_ONE[name])


@pytest.mark.parametrize("name", STAGE_TWO)
def test_stage_two_decays_as_released(name):
    two = find_recipe(name).stage_two
    with torch.device("meta"):
        head = two.head.build()
    compare(head, two.optimizer, STAGE_TWO[name])
