"""Complete reference models: every weight has one place in ours, none of ours stays empty, and the way back is the way
in. What a model is made of is read from its names and shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from model.association.tube_linking import TubeLinkingConfig
from model.backbone import BackboneConfig
from model.converters.layouts import (
    HEAD,
    Detectron2Layout,
    KMaxLayout,
    MmdetLayout,
    read_layout,
    restore_layout,
    usual_layout,
)
from model.converters.official import Conversion, has_head, has_semantic_head, to_ours, to_theirs
from model.cross_clip import CrossClipConfig
from model.cross_clip.maxtron import MaXTronHeadConfig
from model.cross_clip.tube_link import TubeLinkHeadConfig
from model.cross_clip.vita import VitaHeadConfig
from model.pixel_decoders.mask2former import DeformableTrajectoryConfig, Mask2FormerPixelDecoderConfig
from model.query_decoders.kmax import KMaxDecoderConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters import SegmenterConfig
from model.segmenters.mask2former import Mask2FormerConfig
from model.segmenters.tube_link import TubeLinkConfig
from model.segmenters.video_kmax import VideoKMaxConfig
from model.semantic_head import SemanticHeadConfig
from model.within_clip import WithinClipConfig
from tests.fidelity.cases import case_id, layouts

STRIDES = (8, 16, 32)
VITA = "vita_module."
COUNTER = "num_batches_tracked"       # of batch norms: frozen ones have none there
RESHAPED = re.compile(r"backbone\.stages\.\d\.(downsample\.|\d+\.grn\.).+")
CONVNEXT = {(96, 9): "tiny", (96, 27): "small", (128, 27): "base", (192, 27): "large"}         # width, depth of stage 3
SWIN = {(96, 6): "tiny", (96, 18): "small", (128, 18): "base", (192, 18): "large"}


def count(state: Iterable[str], pattern: str) -> int:
    """How many different numbers stand in the place of the pattern's group, 0 where no name has one."""
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def backbone_of(state: Mapping[str, Tensor]) -> str:
    """timm's name of the network."""
    if "backbone.downsample_layers.0.0.weight" in state:
        width = len(state["backbone.downsample_layers.0.0.weight"])
        version = "convnextv2" if any(".grn." in name for name in state) else "convnext"
        return f"{version}_{CONVNEXT[width, count(state, r'backbone.stages.2.([0-9]+)')]}"
    if "backbone.patch_embed.projection.weight" in state:
        size = SWIN[len(state["backbone.patch_embed.projection.weight"]),
                    count(state, r"backbone\.stages\.2\.blocks\.(\d+)")]
        sides = len(state["backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table"])
        window = (int(sides**0.5) + 1) // 2
        return f"swin_{size}_patch4_window{window}_{32 * window}"
    depth = count(state, r"backbone\.(?:res4|layer3)\.(\d+)")
    return {6: "resnet50", 23: "resnet101"}[depth]


def video_kmax(state: Mapping[str, Tensor]) -> tuple[SegmenterConfig, CrossClipConfig | None]:
    """Of kMaX-DeepLab, with or without MaXTron's parts."""
    classes = "sem_seg_head.predictor._predictor._transformer_class_head.conv.bias"
    queries = r".*_cluster_centers"
    rows = len(state.get(classes, state.get(classes.replace("._predictor", "._predcitor"))))
    within, temporal = (r".*within_clip_tracking_module\.transformer\.encoder\." + part
                        for part in (r"spatial_layers\.(\d+)", r"temporal_layers\.\d+\.temporal_layers\.(\d+)"))
    tracking = None
    if blocks := count(state, within):
        trajectories = count(state, temporal)
        tracking = WithinClipConfig(blocks=blocks, trajectory_layers_per_block=trajectories,
                                    attention="axial" if trajectories else None)
    number = next(tensor.shape[1] for name, tensor in state.items() if re.match(queries, name))
    segmenter = VideoKMaxConfig(
        num_classes=rows - 1, within_clip=tracking, backbone=BackboneConfig(name=backbone_of(state)),
        query_decoder=KMaxDecoderConfig(num_queries=number),
        semantic_head=SemanticHeadConfig() if has_semantic_head(state) else None)
    layers = count(state, r"cross_clip_tracking_module\.conv_norms\.(\d+)")
    return segmenter, MaXTronHeadConfig(num_classes=rows - 1, layers=layers, start="official") if layers else None


def tube_link(state: Mapping[str, Tensor]) -> tuple[SegmenterConfig, CrossClipConfig | None]:
    """Of Mask2Former in mmdetection, Tube-Link and MaXTron on it."""
    classes = len(state["panoptic_head.cls_embed.bias"]) - 1
    backbone = backbone_of(state)
    encoder = r"panoptic_head\.pixel_decoder\.encoder\.layers\.(\d+)"
    temporal = count(state, r".*\.temporal_layer\.temporal_layers\.(\d+)")
    levels = len(state["panoptic_head.pixel_decoder.level_3d_encodeing.weight"]) if temporal else 0
    linking = TubeLinkingConfig(link="link_ffn_norm_track.weight" in state) if "fc_embed.weight" in state else None
    segmenter = TubeLinkConfig(
        num_classes=classes, linking=linking,
        backbone=BackboneConfig(name=backbone, output_norms=backbone.startswith("swin")),
        within_clip=DeformableTrajectoryConfig(layers=temporal, strides=STRIDES[-levels:]) if temporal else None,
        pixel_decoder=Mask2FormerPixelDecoderConfig(layers=count(state, encoder)),
        query_decoder=Mask2FormerDecoderConfig(
            num_queries=len(state["panoptic_head.query_feat.weight"]),
            layers=count(state, r"panoptic_head\.transformer_decoder\.layers\.(\d+)")))
    layers = count(state, r"panoptic_head\.conv_norms\.(\d+)")
    return segmenter, TubeLinkHeadConfig(num_classes=classes, layers=layers, start="official") if layers else None


def mask2former(state: Mapping[str, Tensor]) -> tuple[SegmenterConfig, CrossClipConfig | None]:
    """Of Mask2Former in detectron2, with or without VITA."""
    predictor = "sem_seg_head.predictor."
    backbone = backbone_of(state)
    classes = len(state[f"{predictor}class_embed.bias"]) - 1
    queries = len(state[f"{predictor}query_feat.weight"])
    segmenter = Mask2FormerConfig(
        num_classes=classes, backbone=BackboneConfig(name=backbone, output_norms=backbone.startswith("swin")),
        pixel_decoder=Mask2FormerPixelDecoderConfig(
            layers=count(state, r"sem_seg_head\.pixel_decoder\.transformer\.encoder\.layers\.(\d+)")),
        query_decoder=Mask2FormerDecoderConfig(
            num_queries=queries, positions="frame",
            layers=count(state, r"sem_seg_head\.predictor\.transformer_ffn_layers\.(\d+)")))
    if f"{VITA}query_feat.weight" not in state:
        return segmenter, None
    return segmenter, VitaHeadConfig(
        num_classes=classes, frame_queries=queries, num_queries=len(state[f"{VITA}query_feat.weight"]),
        encoder_layers=count(state, r"vita_module\.enc_ffn\.(\d+)"),
        decoder_layers=count(state, r"vita_module\.transformer_ffn_layers\.(\d+)"))


DESCRIBED = {KMaxLayout: video_kmax, MmdetLayout: tube_link, Detectron2Layout: mask2former}


def convert(state: Mapping[str, Tensor]) -> Conversion:
    layout = read_layout(state)
    segmenter, head = DESCRIBED[type(layout)](state)
    assert (head is not None) == has_head(state)
    with torch.device("meta"):
        own = segmenter.build().state_dict()
        if head is not None:
            own |= {f"{HEAD}{name}": tensor for name, tensor in head.build().state_dict().items()}
    return to_ours(state, layout=layout, own=own)


@pytest.mark.parametrize("path", layouts(), ids=case_id)
def test_every_weight_of_a_model_has_its_place_and_comes_back(path):
    """Identity of the objects, so that bytes cannot differ; but Swin's merging of patches and the response norms of
    ConvNeXtV2 have another shape here."""
    recorded = json.loads(path.read_text())["weights"]
    state = {name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
             for name, (dtype, shape) in recorded.items()}
    conversion = convert(state)
    layout = read_layout(state)
    assert set(conversion.unused.values()) <= {"a constant that every run rebuilds"}
    assert all(name.endswith(COUNTER) for name in conversion.from_scratch)
    assert list(conversion.names) == [name for name in state if name not in conversion.unused]
    back = to_theirs(conversion.weights, layout=layout)
    assert back.keys() == conversion.names.keys()
    for name, tensor in back.items():
        same = (tensor.shape, tensor.dtype) == (state[name].shape, state[name].dtype)
        assert tensor is state[name] or (same and RESHAPED.fullmatch(name)), name
    assert restore_layout(json.loads(json.dumps(asdict(layout)))) == layout
    if isinstance(layout, MmdetLayout):
        assert usual_layout(conversion.weights, family="mmdet") == layout
