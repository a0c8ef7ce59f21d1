"""Video-kMaX itself (arXiv 2304.04694): pre-training on pseudo-videos of COCO, then VIPSeg, near-online and online.

Source: dlsrbgg33/video_kmax, configs/coco/video-panoptic-segmentation and configs/VIPSeg; scores: its README.
`vipseg.py` has MaXTron's own re-implementation of the same network ("RP"), which scores higher. A pseudo-video is a
still twice, each time at a scale and with a crop of its own; the near-online model starts from there, the online model,
with clips of one frame, from image kMaX-DeepLab (`coco.py`). Near-online, clips share a frame: things are stitched
there, and others are looked up in the location-aware memory buffer. Variants of this test share the run's folder.

Different here: the released scores are those of models that were trained in TensorFlow, ConvNeXt-L on more images than
COCO's train split (its val split, or unlabelled images), and the network starts from timm's ImageNet weights. The
released linking has flaws that `inference.association.official_compat=true` brings back. The file of near-online
ConvNeXt-L asks for 833x1409 in a block that its next block overwrites, so its input is 897x1601 as well.
Price: 8 clips a step on 8 GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from jobs.recipes import coco, vipseg
from jobs.recipes.schema import ClusterConfig, Recipe, StageOneConfig
from jobs.training.loop import FitConfig
from jobs.training.optimizer import OptimizerConfig
from model.association import AssociationConfig, HungarianConfig
from model.association.memory_buffer import MemoryBufferConfig
from model.association.stitching import StitchingConfig
from model.backbone import BackboneConfig
from model.inference import InferenceConfig
from model.losses.kmax import KMaxLossConfig
from model.postprocess.panoptic import PanopticConfig
from model.segmenters.video_kmax import VideoKMaxConfig
from pipeline.clips import AugmentConfig
from pipeline.datasets import DatasetConfig
from pipeline.shards import ShardConfig
from pipeline.training_input import CopyPasteConfig, InputConfig, RefusalConfig

SIZE = (897, 1601)      # network input; 720p frames are scaled up to it
BATCH = 8
REACH = 5               # frames from one frame of a training clip to the other, at most
CLUSTER = ClusterConfig(workers=8, cpus_per_worker=6, gpus_per_worker=1, actors=8, gpus_per_actor=1)

# The released merging: each pixel goes to one of the queries that are sure of their class, near-online and online. The
# released code can also merge mask by mask, which alignment needs.
NEAR_ONLINE = PanopticConfig(thing=0.3, stuff=0.3, pixel=0.5, sure_first=True)
ONLINE = replace(NEAR_ONLINE, thing=0.4, stuff=0.4)
MASK_WISE = PanopticConfig(thing=0.5, stuff=0.5, pixel=0.3)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the released files say of one backbone, and the published scores."""

    drop_path: float = 0.0
    coco: FitConfig                     # pre-training on pseudo-videos
    coco_batch: int
    steps: tuple[int, int]              # on VIPSeg: near-online, online
    vpq: tuple[float, float]            # near-online, online


SETTINGS = {
    "r50": Settings(coco=FitConfig(steps=150_000), coco_batch=64, steps=(80_000, 60_000), vpq=(38.2, 36.8)),
    "convnext_l": Settings(drop_path=0.4, coco=FitConfig(steps=300_000, precision="fp16"), coco_batch=8,
                           steps=(30_000, 40_000), vpq=(51.9, 49.4)),
}
VARIANTS: dict[str, AssociationConfig] = {"stitching": StitchingConfig(), "hungarian": HungarianConfig()}


def pseudo_videos(backbone: str) -> Recipe:
    """Pre-training on clips of two frames made of COCO's stills. No score is published.

    The network, losses and images are those of kMaX-DeepLab (`coco.py`); nothing is mirrored. A clip without a target
    is drawn again; officially, the target has to be in the first frame. Scored on stills.
    """
    settings = SETTINGS[backbone]
    base = coco.kmax(backbone, msda=False)
    one = base.stage_one
    return replace(
        base, name=f"coco_video_kmax_{backbone}",
        about=f"COCO val, Video-kMaX on pseudo-videos, {vipseg.SETTINGS[backbone].title}; no published score",
        stage_one=replace(
            one, input=replace(one.input, clip_frames=2, jitter_stills=True, refuse=RefusalConfig(labelled=0),
                               batch_size=settings.coco_batch, augment=replace(one.input.augment, flip=0.0)),
            optimizer=replace(one.optimizer, lr=1e-4), fit=settings.coco),
        inference=InferenceConfig(clip_frames=1, panoptic=replace(MASK_WISE, pixel=0.4), enlarge=True),
        cluster=base.cluster if settings.coco_batch > BATCH else CLUSTER)


def near_online(backbone: str) -> Recipe:
    """Clips of two frames, linked by stitching and by the memory buffer. Expect 38.2 VPQ with R50.

    Training clips are two frames at most five apart. Pasted are the first segments of another clip in random order,
    things like stuff. Starts from `coco_video_kmax_<backbone>`; its semantic head is dropped, as its loss has weight 0.
    """
    settings = SETTINGS[backbone]
    return Recipe(
        name=f"vipseg_original_video_kmax_{backbone}", about=_about(backbone, settings.vpq[0], "near-online"),
        dataset=DatasetConfig(name="vipseg", root="data/VIPSeg_720P"), shards=ShardConfig(resize_height=720),
        stage_one=StageOneConfig(
            segmenter=VideoKMaxConfig(
                num_classes=vipseg.CLASSES, semantic_head=None,
                backbone=BackboneConfig(name=vipseg.SETTINGS[backbone].network, drop_path=settings.drop_path)),
            losses=KMaxLossConfig(class_weight=1.0, dice_weight=3.0, mask_weight=0.3, semantic_weight=0.0,
                                  pixel_temperature=1.5, semantic_temperature=2.0),
            start_from=f"runs/coco_video_kmax_{backbone}/stage_one/model",
            input=InputConfig(reach=REACH, batch_size=BATCH, copy_paste=CopyPasteConfig(all_things=False),
                              augment=AugmentConfig(size=SIZE, scale=(0.5, 2.0), reverse=0.0)),
            optimizer=OptimizerConfig(lr=3e-4, weight_decay=0.05, warmup_steps=5000, multipliers=(("backbone.", 0.1),)),
            fit=FitConfig(steps=settings.steps[0])),
        inference=InferenceConfig(panoptic=NEAR_ONLINE, association=MemoryBufferConfig(), enlarge=True),
        cluster=CLUSTER)


def linked_by(backbone: str, variant: str) -> Recipe:
    """The near-online model linked in a way of `VARIANTS`: by stitching alone, or by aligned queries as in MaXTron."""
    base = near_online(backbone)
    panoptic = MASK_WISE if variant == "hungarian" else NEAR_ONLINE
    return replace(base, name=f"{base.name}_{variant}", folder=f"runs/{base.name}",
                   about=_about(backbone, None, f"near-online, linked by {variant}"),
                   inference=replace(base.inference, association=VARIANTS[variant], panoptic=panoptic))


def online(backbone: str) -> Recipe:
    """Clips of one frame, linked by the memory buffer alone. Expect 36.8 VPQ with R50. Starts from `coco_kmax_`."""
    settings = SETTINGS[backbone]
    base = near_online(backbone)
    one = base.stage_one
    return replace(
        base, name=f"{base.name}_online", about=_about(backbone, settings.vpq[1], "online"),
        stage_one=replace(one, start_from=f"runs/coco_kmax_{backbone}/stage_one/model",
                          input=replace(one.input, clip_frames=1, reach=0), fit=FitConfig(steps=settings.steps[1])),
        inference=replace(base.inference, panoptic=ONLINE, association=MemoryBufferConfig(overlap=0, accept=0.5)))


def _about(backbone: str, vpq: float | None, mode: str) -> str:
    expected = "no published score" if vpq is None else f"expect {vpq} VPQ"
    return f"VIPSeg val, Video-kMaX, {vipseg.SETTINGS[backbone].title}; {expected} {mode}"


RECIPES: dict[str, Callable[[], Recipe]] = {
    **{f"coco_video_kmax_{backbone}": partial(pseudo_videos, backbone) for backbone in SETTINGS},
    **{f"vipseg_original_video_kmax_{backbone}": partial(near_online, backbone) for backbone in SETTINGS},
    **{f"vipseg_original_video_kmax_{backbone}_{variant}": partial(linked_by, backbone, variant)
       for backbone in SETTINGS for variant in VARIANTS},
    **{f"vipseg_original_video_kmax_{backbone}_online": partial(online, backbone) for backbone in SETTINGS},
}
