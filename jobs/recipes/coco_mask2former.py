"""COCO pre-training of Mask2Former, and what every recipe of its family shares: backbones, optimizer, cluster.

Tube-Link with clips of one frame and places in the frame only is Mask2Former (arXiv 2112.01527): `youtube_vis.py` and
`tube_link.py` start from these runs, or from a converted official checkpoint that `stage_one.start_from` names.
Settings: open-mmlab/mmdetection, configs/mask2former; scores: the tables of the paper. Stage one only: an image has no
clips to link. Panoptic models are scored as semantic ones: without linking, Tube-Link makes no panoptic result. Images
are tested whole, with a short side of 800 pixels and a long side of at most 1333.
Price: 368,750 steps of 16 images of 1024x1024, twice as many for Swin-L, 266,148 for STDC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from jobs.recipes.schema import CacheConfig, ClusterConfig, Recipe, StageOneConfig
from jobs.training.loop import FitConfig
from jobs.training.optimizer import OptimizerConfig
from model.backbone import BackboneConfig
from model.inference import InferenceConfig, ResizeConfig
from model.layers.convolution import BatchNormConfig
from model.losses.mask2former import Mask2FormerLossConfig
from model.postprocess.instances import TrackConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters.tube_link import TubeLinkConfig
from pipeline.clips import AugmentConfig
from pipeline.datasets import DatasetConfig
from pipeline.query_cache import EvidenceConfig
from pipeline.training_input import InputConfig

SIZE = (1024, 1024)
BATCH = 16      # images or clips a step, of all models of this family

# Networks by name, as the image and the instance models have them: batch norms keep their statistics.
_resnet = partial(BackboneConfig, batch_norm=BatchNormConfig(eps=1e-5, momentum=0.1), frozen_statistics=True)
BACKBONES = {
    "r50": _resnet(name="resnet50"),
    "r101": _resnet(name="resnet101"),
    "stdc1": BackboneConfig(name="stdc1", batch_norm=BatchNormConfig(eps=1e-5, momentum=0.1)),
    "stdc2": BackboneConfig(name="stdc2", batch_norm=BatchNormConfig(eps=1e-5, momentum=0.1)),
    "swin_b": BackboneConfig(name="swin_base_patch4_window12_384", drop_path=0.3, output_norms=True),
    "swin_l": BackboneConfig(name="swin_large_patch4_window12_384", drop_path=0.3, output_norms=True),
}
RESNETS = ("r50", "r101")
TITLES = {"r50": "ResNet-50", "r101": "ResNet-101", "stdc1": "STDC-1", "stdc2": "STDC-2", "swin_b": "Swin-B",
          "swin_l": "Swin-L"}
# timm's tags of the official ImageNet weights, and those of `model/stdc.py`
WEIGHTS = {"r50": "tv_in1k", "r101": "tv_in1k", "stdc1": "in1k", "stdc2": "in1k", "swin_b": "ms_in22k",
           "swin_l": "ms_in22k"}

# Norms do not decay, biases do; of the embeddings only the pixel decoder's do. mmdetection's schedule for ResNet is an
# exception: its key "backbone" hides the rule for the norms there (mmcv, DefaultOptimizerConstructor), so all of the
# backbone decays, also that of Swin where a file of Tube-Link takes this schedule.
NO_DECAY = ("relative_", "initial_queries", "query_positions", "query_decoder.level_embedding")
BACKBONE_DECAYS = (("backbone.", True),)
FROZEN_NORMS = (".bn", ".downsample.1.")        # ResNet's, on COCO and for VITA

CLUSTER = ClusterConfig(workers=16, cpus_per_worker=6, gpus_per_worker=1, actors=16, gpus_per_actor=1)
CACHE = CacheConfig(views=5, evidence=EvidenceConfig(pixels=1024))      # four are augmented, and they alone are drawn


def pretrained(backbone: str) -> BackboneConfig:
    """A network with its official ImageNet weights, which are fetched once."""
    config = BACKBONES[backbone]
    return replace(config, name=f"{config.name}.{WEIGHTS[backbone]}", pretrained=True)


def optimizer(*milestones: int, warmup_steps: int = 500, first: tuple[tuple[str, float], ...] = (),
              decay: tuple[tuple[str, bool], ...] = (), frozen: tuple[str, ...] = ()) -> OptimizerConfig:
    """The one of all models of this family. first: multipliers that come before the backbone's."""
    return OptimizerConfig(lr=1e-4, weight_decay=0.05, warmup_steps=warmup_steps, schedule="steps",
                           milestones=milestones, clip_norm=0.01, multipliers=(*first, ("backbone.", 0.1)),
                           decay=decay, no_decay=NO_DECAY, frozen=frozen)


def schedule_decay(backbone: str) -> tuple[tuple[str, bool], ...]:
    """The decay rules by which mmdetection's schedule for the network differs from NO_DECAY."""
    return () if backbone.startswith("swin") else BACKBONE_DECAYS


TEST_SIZE = ResizeConfig(short_side=800, long_side=1333, interpolation="opencv")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the kinds of labels of COCO ask for."""

    dataset: Literal["coco_instance", "coco_panoptic"]
    num_classes: int
    inference: InferenceConfig
    score: str
    scores: dict[str, float | None]     # of each backbone that has a recipe; None: not published


TASKS = {
    "instance": Task(
        dataset="coco_instance", num_classes=80, score="AP", scores={"r50": 43.7, "swin_l": 50.1},
        inference=InferenceConfig(results=("tracks",), tracks=TrackConfig(candidates=100, per_frame=100),
                                  resize=TEST_SIZE)),
    "panoptic": Task(
        dataset="coco_panoptic", num_classes=133, score="mIoU",
        scores={"r50": 61.7, "stdc1": None, "stdc2": None, "swin_b": 67.1, "swin_l": 67.4},
        inference=InferenceConfig(results=("semantic",), resize=TEST_SIZE)),
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps of a training, where its learning rate drops, and the steps that warm it up."""

    steps: int
    milestones: tuple[int, int]
    warmup: int = 0


EPOCH = 7393        # steps of STDC's files, which count epochs of 118,287 images
USUAL = Schedule(steps=368_750, milestones=(327_778, 355_092))
STDC = Schedule(steps=36 * EPOCH, milestones=(27 * EPOCH, 33 * EPOCH), warmup=500)
SCHEDULES = {"stdc1": STDC, "stdc2": STDC, "swin_l": Schedule(steps=737_500, milestones=(655_556, 710_184))}


def mask2former(task: str, backbone: str) -> Recipe:
    """Mask2Former on COCO. Expect 43.7 AP (instance) or 61.7 mIoU (panoptic) with R50.

    Swin-L has 200 queries and 100 epochs. STDC follows Tube-Link's files, which train 36 epochs. Tube-Link's own file
    of the instance model trains 50 epochs: `stage_one.fit.steps=368750` and
    `stage_one.optimizer.milestones=[327778,355092]`.
    """
    settings = TASKS[task]
    schedule = SCHEDULES.get(backbone, USUAL)
    score = settings.scores.get(backbone)
    return Recipe(
        name=f"coco_mask2former_{task}_{backbone}",
        about=f"COCO val, Mask2Former, {TITLES[backbone]}, {task} labels; "
              + ("no published score" if score is None else f"expect {score} {settings.score}"),
        dataset=DatasetConfig(name=settings.dataset, root="data/coco"),
        stage_one=StageOneConfig(
            segmenter=TubeLinkConfig(
                num_classes=settings.num_classes, backbone=pretrained(backbone),
                query_decoder=Mask2FormerDecoderConfig(num_queries=200 if backbone == "swin_l" else 100,
                                                       positions="frame")),
            losses=Mask2FormerLossConfig(),
            input=InputConfig(clip_frames=1, batch_size=BATCH, copy_paste=None, drop_empty=task == "instance",
                              augment=AugmentConfig(size=SIZE, scale=(0.1, 2.0), reverse=0.0, color=False,
                                                    interpolation="opencv")),
            optimizer=optimizer(*schedule.milestones, warmup_steps=schedule.warmup, decay=schedule_decay(backbone),
                                frozen=FROZEN_NORMS if backbone in RESNETS else ()),
            fit=FitConfig(steps=schedule.steps)),
        inference=settings.inference, cluster=CLUSTER)


RECIPES: dict[str, Callable[[], Recipe]] = {
    f"coco_mask2former_{task}_{backbone}": partial(mask2former, task, backbone)
    for task in TASKS for backbone in TASKS[task].scores}
