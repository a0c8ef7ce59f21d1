"""Video-kMaX on KITTI-STEP, near-online and online, with the three backbones of its supplement (arXiv 2304.04694).

No file was released: everything but what is named here is that of VIPSeg (`video_kmax.py`). The supplement gives frames
of 375x1242, the backbones and the memory's tau; tau counts frames, and near-online a clip begins at every frame, so
`inference.association.patience` counts the same. The networks start from ImageNet, Axial-ResNet50-B1 from random
weights, since its own were released for TensorFlow alone; those of the paper were trained on Cityscapes after ImageNet
too: set `stage_one.start_from` to such a model. Price: 8 clips a step on 8 GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from jobs.recipes import video_kmax
from jobs.recipes.schema import Recipe
from model.backbone import BackboneConfig
from pipeline.datasets import DatasetConfig
from pipeline.shards import ShardConfig

CLASSES = 19
SIZE = (385, 1249)      # 375x1242 up to the next sides of the form 1 + 32 k


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is its own for a backbone."""

    title: str
    backbone: BackboneConfig
    as_on_vipseg: str           # the backbone of VIPSeg's files whose schedule it takes
    expect: str = ""            # near-online; empty: no published score


SETTINGS = {
    "r50": Settings(title="ResNet-50", as_on_vipseg="r50",
                    backbone=BackboneConfig(name="resnet50.tv_in1k", pretrained=True)),
    # google-research/deeplab2, configs/cityscapes/kmax_deeplab/kmax_meta_axial_r50_os32.textproto: keeps 80 % of paths
    "axial_r50": Settings(title="Axial-ResNet50-B1", as_on_vipseg="r50", expect="74.7 STQ",
                          backbone=BackboneConfig(name="axial_resnet50", drop_path=0.2)),
    "convnext_l": Settings(title="ConvNeXt-L", as_on_vipseg="convnext_l",
                           backbone=BackboneConfig(name="convnext_large.fb_in22k_ft_in1k_384", pretrained=True,
                                                   drop_path=0.4)),
}


def near_online(backbone: str) -> Recipe:
    """Clips of two frames, linked by stitching and LA-MB. Expect 74.7 STQ with Axial-ResNet50-B1."""
    settings = SETTINGS[backbone]
    expected = f"expect {settings.expect}" if settings.expect else "no published score"
    return _on_kitti_step(video_kmax.near_online(settings.as_on_vipseg), backbone,
                          name=f"kitti_step_video_kmax_{backbone}",
                          about=f"KITTI-STEP val, Video-kMaX, {settings.title}; {expected} near-online")


def online(backbone: str) -> Recipe:
    """Clips of one frame, linked by LA-MB alone. No score stands in the supplement."""
    settings = SETTINGS[backbone]
    return _on_kitti_step(video_kmax.online(settings.as_on_vipseg), backbone,
                          name=f"kitti_step_video_kmax_{backbone}_online",
                          about=f"KITTI-STEP val, Video-kMaX, {settings.title}; no published score online")


def _on_kitti_step(base: Recipe, backbone: str, *, name: str, about: str) -> Recipe:
    one = base.stage_one
    return replace(
        base, name=name, about=about, dataset=DatasetConfig(name="kitti_step", root="data/kitti_step"),
        shards=ShardConfig(),
        stage_one=replace(one, start_from="", segmenter=replace(one.segmenter, num_classes=CLASSES,
                                                                backbone=SETTINGS[backbone].backbone),
                          input=replace(one.input, augment=replace(one.input.augment, size=SIZE))))


RECIPES: dict[str, Callable[[], Recipe]] = {
    **{f"kitti_step_video_kmax_{backbone}": partial(near_online, backbone) for backbone in SETTINGS},
    **{f"kitti_step_video_kmax_{backbone}_online": partial(online, backbone) for backbone in SETTINGS},
}
