"""COCO panoptic pre-training: kMaX-DeepLab, plain and with the deformable layers of MaXTron ("MSDA").

The segmenter of the video runs with clips of one frame: `vipseg.py` starts from these. Settings: bytedance/
kmax-deeplab, configs/coco/panoptic_segmentation; TACJu/MaXTron, the same files with MSDA. Stage one only: an image has
no clips to link. Scored images are scaled until their longer side fills the network input. PQ is the VPQ of windows of
one frame (`vpq_by_window` 1). The ImageNet weights are timm's copies of the official ones, and are fetched once;
`stage_one.start_from` takes converted files instead. Price: 150k steps of 64 images of 1281x1281.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jobs.recipes import vipseg
from jobs.recipes.schema import ClusterConfig, Recipe, StageOneConfig
from jobs.training.loop import FitConfig
from jobs.training.optimizer import OptimizerConfig
from model.backbone import BackboneConfig
from model.inference import InferenceConfig
from model.losses.kmax import KMaxLossConfig
from model.segmenters.video_kmax import VideoKMaxConfig
from model.within_clip import WithinClipConfig
from pipeline.clips import AugmentConfig
from pipeline.datasets import DatasetConfig
from pipeline.training_input import CopyPasteConfig, InputConfig, RefusalConfig

CLASSES = 133
SIZE = (1281, 1281)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the official settings say of one backbone, beside what `vipseg.SETTINGS` says of it."""

    weights: str                                # timm's tag of the official ImageNet weights
    drop_path: float = 0.6
    pq: tuple[float | None, float]              # COCO val: plain (None: not published), with MSDA


SETTINGS = {
    "r50": Settings(weights="tv_in1k", drop_path=0.0, pq=(53.3, 53.6)),
    "convnext_l": Settings(weights="fb_in22k_ft_in1k_384", pq=(57.9, 57.9)),
    "convnextv2_l": Settings(weights="fcmae_ft_in22k_in1k_384", pq=(None, 58.1)),
}


def kmax(backbone: str, *, msda: bool) -> Recipe:
    """kMaX-DeepLab. Expect 53.3 PQ with R50. msda: two deformable layers before the pixel decoder; then 53.6 PQ."""
    settings = SETTINGS[backbone]
    network = vipseg.SETTINGS[backbone].network
    title = vipseg.SETTINGS[backbone].title
    expected = "no published score" if settings.pq[msda] is None else f"expect {settings.pq[msda]} PQ"
    return Recipe(
        name=f"coco_kmax_{'msda_' if msda else ''}{backbone}",
        about=f"COCO val, kMaX-DeepLab{' with MSDA' if msda else ''}, {title}; {expected}",
        dataset=DatasetConfig(name="coco_panoptic", root="data/coco"),
        stage_one=StageOneConfig(
            segmenter=VideoKMaxConfig(
                num_classes=CLASSES, within_clip=WithinClipConfig(attention=None) if msda else None,
                backbone=BackboneConfig(name=f"{network}.{settings.weights}", pretrained=True,
                                        drop_path=settings.drop_path)),
            losses=KMaxLossConfig(class_weight=3.0, dice_weight=3.0, mask_weight=0.3, pixel_temperature=1.5,
                                  semantic_temperature=2.0),
            input=InputConfig(clip_frames=1, batch_size=64, copy_paste=CopyPasteConfig(),
                              refuse=RefusalConfig(labelled=4096),
                              augment=AugmentConfig(size=SIZE, scale=(0.2, 2.0), reverse=0.0)),
            optimizer=OptimizerConfig(lr=5e-4, weight_decay=0.05, warmup_steps=5000, multipliers=(("backbone.", 0.1),),
                                      decay=vipseg.SETTINGS[backbone].decay),
            fit=FitConfig(steps=150_000, precision="fp16")),
        inference=InferenceConfig(panoptic=vipseg.COCO, enlarge=True),
        cluster=ClusterConfig(workers=16, cpus_per_worker=6, gpus_per_worker=1, actors=16, gpus_per_actor=1))


RECIPES: dict[str, Callable[[], Recipe]] = {
    f"coco_kmax_{part}{backbone}": partial(kmax, backbone, msda=msda)
    for part, msda in (("", False), ("msda_", True)) for backbone in SETTINGS}
