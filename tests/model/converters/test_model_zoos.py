"""Every layout of the official model zoos converts at full size; only weights that nobody reads stay behind."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor

from model.backbone import BackboneConfig
from model.converters.layouts import HEAD, read_layout, restore_layout
from model.converters.official import Conversion, has_head, to_ours, to_theirs
from model.cross_clip.vita import VitaHeadConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters import SegmenterConfig
from model.segmenters.mask2former import Mask2FormerConfig
from model.segmenters.tube_link import TubeLinkConfig
from model.segmenters.video_kmax import VideoKMaxConfig
from model.within_clip import WithinClipConfig
from tests.model.converters.model_zoos import CLIP_LEVELS, ZOO

NETWORKS = {"r50": "resnet50", "convnext_l": "convnext_large", "convnextv2_l": "convnextv2_large"}
CONSTANT = "a constant that every run rebuilds"
UNREAD = "no attention in time in the checkpoint, so nothing reads it"
FRAME = Mask2FormerDecoderConfig(positions="frame")


def msda(backbone: str) -> VideoKMaxConfig:
    return VideoKMaxConfig(num_classes=133, within_clip=WithinClipConfig(attention=None),
                           backbone=BackboneConfig(name=NETWORKS[backbone]))


CONFIGS: dict[str, SegmenterConfig] = {
    **{f"coco_kmax_msda_{backbone}": msda(backbone) for backbone in NETWORKS},
    **{f"mmdet{release}_{task}": TubeLinkConfig(num_classes=classes, query_decoder=FRAME)
       for release in (2, 3) for task, classes in (("instance", 80), ("panoptic", 133))},
    **{f"detectron2_{task}": Mask2FormerConfig(num_classes=classes)
       for task, classes in (("instance", 80), ("panoptic", 133), ("semantic", 150), ("older", 80))},
    "coco_vita": Mask2FormerConfig(num_classes=80),
}


def convert(state: dict[str, Tensor], config: SegmenterConfig, head: VitaHeadConfig | None = None) -> Conversion:
    with torch.device("meta"):
        own = config.build().state_dict()
        if head is not None:
            own |= {f"{HEAD}{name}": tensor for name, tensor in head.build().state_dict().items()}
    return to_ours(state, layout=read_layout(state), own=own)


@pytest.mark.parametrize("name", ZOO)
def test_every_weight_that_is_read_has_its_place_and_comes_back(name):
    state = ZOO[name]()
    head = VitaHeadConfig(num_classes=80) if has_head(state) else None
    conversion = convert(state, CONFIGS[name], head)
    assert set(conversion.unused.values()) <= {CONSTANT, UNREAD}
    assert all(key.endswith(".num_batches_tracked") for key in conversion.from_scratch)
    layout = read_layout(state)
    back = to_theirs(conversion.weights, layout=layout)
    assert back.keys() == state.keys() - conversion.unused.keys()
    assert all(back[key].shape == state[key].shape for key in back)
    assert restore_layout(json.loads(json.dumps(asdict(layout)))) == layout


@pytest.mark.parametrize(("name", "field", "value"), [
    ("coco_kmax_msda_r50", "predictor", "_predcitor"), ("mmdet2_instance", "release", 2),
    ("mmdet3_instance", "release", 3), ("detectron2_older", "pixel_decoder", "sem_seg_head."),
    ("detectron2_older", "queries", "static_query"), ("coco_vita", "pixel_decoder", "sem_seg_head.pixel_decoder.")])
def test_a_spelling_is_recognised(name, field, value):
    assert asdict(read_layout(ZOO[name]()))[field] == value


@pytest.mark.parametrize("name", ZOO)
def test_a_stray_weight_is_refused_beside_every_layout(name):
    state = ZOO[name]()
    first = next(key for key in state if key.startswith(("sem_seg_head.", "panoptic_head.")))
    stray = f"{first.partition('.')[0]}.stray.weight"
    head = VitaHeadConfig(num_classes=80) if has_head(state) else None
    with pytest.raises(ValueError, match=rf"1 weights do not fit .*\n  {stray}: no such weight"):
        convert(state | {stray: torch.ones(1, device="meta")}, CONFIGS[name], head)


def test_the_clip_level_embedding_of_a_model_of_single_frames_is_reported_as_unused():
    conversion = convert(ZOO["coco_kmax_msda_r50"](), CONFIGS["coco_kmax_msda_r50"])
    assert conversion.unused == {CLIP_LEVELS: UNREAD}
    assert not conversion.from_scratch


def test_the_clip_level_embedding_is_new_where_attention_in_time_is():
    """It was never trained, so a near-online model draws its own."""
    state = ZOO["coco_kmax_msda_r50"]()
    conversion = convert(state, replace(msda("r50"), within_clip=WithinClipConfig()))
    assert conversion.unused == {CLIP_LEVELS: UNREAD}
    assert "within_clip.clip_level_embedding" in conversion.from_scratch
    assert all(key.startswith(("within_clip.trajectory_stacks.", "within_clip.clip_level_embedding"))
               for key in conversion.from_scratch)


def test_a_model_of_clips_needs_the_clip_level_embedding_and_cannot_leave_it_unused():
    state = ZOO["coco_kmax_msda_r50"]()
    temporal = CLIP_LEVELS.replace("level_embed_3d", "encoder.temporal_layers.0.temporal_layers.0.norm1.bias")
    with pytest.raises(ValueError, match=r"level_embed_3d: the recipe's model has no within_clip\.clip_level_emb"):
        convert(state | {temporal: torch.empty(256, device="meta")}, CONFIGS["coco_kmax_msda_r50"])


def test_the_head_of_vita_s_pre_training_fills_that_of_another_data_set_but_for_class_rows():
    conversion = convert(ZOO["coco_vita"](), Mask2FormerConfig(num_classes=40), VitaHeadConfig(num_classes=40))
    rows = {key for key in conversion.from_scratch if not key.endswith(".num_batches_tracked")}
    assert rows == {f"{part}class_head.{kind}" for part in ("query_decoder.", HEAD) for kind in ("weight", "bias")}
    assert set(conversion.unused.values()) == {CONSTANT, "81 class rows, the recipe's model has 41"}


def test_mask2former_of_either_library_is_the_same_network():
    """Tube-Link may start from detectron2's, a frame detector from mmdetection's."""
    assert not convert(ZOO["mmdet3_instance"](), Mask2FormerConfig(num_classes=80)).unused
    unused = convert(ZOO["detectron2_instance"](), TubeLinkConfig(num_classes=80, query_decoder=FRAME)).unused
    assert unused == {"criterion.empty_weight": CONSTANT}
