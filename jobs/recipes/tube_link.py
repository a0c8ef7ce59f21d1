"""Tube-Link, panoptic video on VIPSeg and KITTI-STEP, semantic video on VSPW and VIPSeg: the official settings.

Source: lxtGH/Tube-Link, configs/video (arXiv 2303.12782, tables 3, 5, 6 and 7). A run starts from the panoptic COCO
run of its backbone (`coco_mask2former.py`), or from a converted checkpoint that `stage_one.start_from` names; those on
KITTI-STEP from ImageNet. Not released, and so taken from the nearest file: KITTI-STEP altogether, and semantic video on
VIPSeg. The one file of that name reads VSPW instead; `vspw_2_frames_tube_link_swin_l` is that file. Training crops
squares of 736 or 480 pixels, and frames are tested whole, at their own size. A crop as large as a frame costs 1.7 times
as much: stage_one.input.augment.size=[736,1280], on VSPW [480,864].
Price: 16 clips a step on 16 GPUs. Swin-B on VIPSeg and semantic Swin-L on clips of two take 32 clips on 32 GPUs, as the
released commands do; the paper has 16 everywhere, which is as many epochs with `stage_one.input.batch_size=16`,
`cluster.workers=16` and twice the steps and milestones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from jobs.recipes.coco_mask2former import BACKBONE_DECAYS, BACKBONES, BATCH, CLUSTER, TITLES, optimizer, pretrained
from jobs.recipes.schema import Recipe, StageOneConfig
from jobs.training.loop import FitConfig
from model.association.tube_linking import TubeLinkingConfig
from model.inference import InferenceConfig, ResizeConfig
from model.losses.linking import LinkingLossConfig
from model.losses.mask2former import Mask2FormerLossConfig
from model.postprocess.tube_panoptic import TubePanopticConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters.tube_link import TubeLinkConfig
from pipeline.clips import AugmentConfig
from pipeline.datasets import OFFICIAL_CLASSES, DatasetConfig
from pipeline.shards import ShardConfig
from pipeline.training_input import InputConfig, RefusalConfig


@dataclass(frozen=True, kw_only=True)
class Videos:
    """What is the same for all models on a data set; its train split gives the steps of an epoch."""

    title: str
    dataset: DatasetConfig
    shards: ShardConfig = field(default_factory=ShardConfig)
    frames: int                         # of the train split
    videos: int
    repeats: int = 1                    # times an epoch sees them
    augment: AugmentConfig

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(OFFICIAL_CLASSES[self.dataset.name])

    @property
    def stuff_classes(self) -> tuple[int, ...]:
        """The classes without tracks, each of which gets a query of its own in panoptic video."""
        return tuple(np.flatnonzero(~OFFICIAL_CLASSES[self.dataset.name].is_thing).tolist())


_augment = partial(AugmentConfig, scale=(1.0, 2.0), reverse=0.0, color=False, interpolation="opencv")

VIPSEG = Videos(title="VIPSeg", dataset=DatasetConfig(name="vipseg", root="data/VIPSeg_720P"),
                shards=ShardConfig(resize_height=720), frames=66_767, videos=2806,
                augment=_augment(size=(736, 736), short_side=(720,)))
KITTI_STEP = Videos(title="KITTI-STEP", dataset=DatasetConfig(name="kitti_step", root="data/kitti_step"),
                    frames=5027, videos=12, repeats=4,
                    augment=_augment(size=(384, 1248)))
VSPW = Videos(title="VSPW", dataset=DatasetConfig(name="vspw", root="data/VSPW_480p"),
              frames=198_244, videos=2806, augment=_augment(size=(480, 480), short_side=(480,)))


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one model is, and what to expect of it."""

    videos: Videos
    clip_frames: int = 4                # in training; panoptic: two clips of half of it, to be linked
    stride: int = 1                     # from a frame of a training clip to the next one
    test_frames: int
    epochs: int = 6
    drops: tuple[int, ...] = ()         # epochs after which the learning rate drops; empty: before the last one
    batch: int = BATCH                  # clips a step, one on each GPU; the epochs give the number of steps
    queries: int = 100
    frozen_stages: int = 0              # of Swin, from the finest
    expect: str = ""                    # empty: no published score

    def steps(self, epochs: int) -> int:
        """Steps of so many epochs, in which a clip starts at every frame that has enough frames after it."""
        clips = self.videos.frames - self.videos.videos * (self.clip_frames - 1) * self.stride
        return epochs * math.ceil(self.videos.repeats * clips / self.batch)


PANOPTIC = {
    # Clips of 6 frames at test time give table 3 its score; the released file has 4, which table 8e puts at 39.0 VPQ.
    ("vipseg", "r50"): Row(videos=VIPSEG, epochs=8, test_frames=6, expect="39.2 VPQ near-online and 39.5 STQ"),
    ("vipseg", "swin_b"): Row(videos=VIPSEG, test_frames=2, batch=32, expect="50.4 VPQ near-online and 49.4 STQ"),
    ("vipseg", "stdc1"): Row(videos=VIPSEG, clip_frames=8, epochs=8, test_frames=6,
                             expect="30.6 VPQ near-online and 32.0 STQ"),
    ("vipseg", "stdc2"): Row(videos=VIPSEG, clip_frames=8, epochs=12, drops=(9, 11), test_frames=6,
                             expect="31.4 VPQ near-online and 32.8 STQ"),
    ("kitti_step", "r50"): Row(videos=KITTI_STEP, epochs=12, test_frames=2,
                               expect="51 VPQ near-online and 68 STQ after pre-training on Cityscapes"),
    ("kitti_step", "swin_b"): Row(videos=KITTI_STEP, epochs=12, test_frames=2,
                                  expect="56 VPQ near-online and 72 STQ after pre-training on Cityscapes"),
}
_semantic = partial(Row, test_frames=6)
_on_vipseg = partial(_semantic, videos=VIPSEG, clip_frames=2)
SEMANTIC = {
    ("vspw", "r50"): _semantic(videos=VSPW, stride=2, expect="42.3 mIoU, 86.8 mVC8 and 83.2 mVC16"),
    ("vspw", "swin_l"): _semantic(videos=VSPW, clip_frames=6, stride=2, queries=200, frozen_stages=3,
                                  expect="59.7 mIoU, 90.3 mVC8 and 88.4 mVC16"),
    ("vspw_2_frames", "swin_l"): _semantic(videos=VSPW, clip_frames=2, queries=200, batch=32),
    ("vipseg_vss", "r50"): _on_vipseg(expect="43.4 mIoU, 89.2 mVC8 and 85.4 mVC16"),
    ("vipseg_vss", "swin_b"): _on_vipseg(expect="62.3 mIoU, 91.4 mVC8 and 89.3 mVC16"),
    ("vipseg_vss", "swin_l"): _on_vipseg(queries=200, batch=32, expect="64.9 mIoU, 92.4 mVC8 and 89.9 mVC16"),
}


def semantic(data: str, backbone: str) -> Recipe:
    """Semantic video. Expect 42.3 mIoU on VSPW with R50. Starts from the panoptic COCO run of the backbone.

    The released file for VIPSeg, with Swin-L, trains and tests on VSPW: its name and the paper's table 6 say VIPSeg.
    `vipseg_vss` therefore trains on VIPSeg with the file's network, clips and epochs, and `vspw_2_frames` does what the
    file does; the paper gives it no score. VIPSeg's videos are videos of VSPW with a third of their frames.

    Nothing is linked, and no query is reserved. On VIPSeg objects of a class stay apart in training; the result does
    not tell them apart. ResNet's batch norms take statistics of the batch, over all GPUs.
    """
    return _run(data, backbone, SEMANTIC[data, backbone])


def panoptic(data: str, backbone: str) -> Recipe:
    """Panoptic video: a query for each class of stuff, learned linking, quasi-dense tracking. Expect 39.2 VPQ on VIPSeg
    with R50. Starts from the panoptic COCO run of the backbone, on KITTI-STEP from ImageNet.

    STDC trains on two clips of four frames. The file of STDC-2 trains twelve epochs and is tested frame by frame; the
    paper names eight epochs and clips of six frames (A.2), of which the recipe has the clips. Officially most batch
    norms of STDC take statistics of the clips of one GPU; here all take those of the batch.
    For the published scores on KITTI-STEP set `stage_one.start_from` to a model that was pre-trained on Cityscapes; the
    paper puts its worth at 3 VPQ and 2 STQ.
    """
    row = PANOPTIC[data, backbone]
    base = _run(data, backbone, row)
    stuff = row.videos.stuff_classes
    one = base.stage_one
    linked = replace(one.segmenter, stuff_classes=stuff, linking=TubeLinkingConfig())  # type: ignore[arg-type]
    one = replace(one, segmenter=linked,
                  losses=replace(one.losses, stuff_classes=stuff),  # type: ignore[arg-type]
                  linking=LinkingLossConfig(stuff_classes=stuff, segmentation="sum"))
    if data == "kitti_step":
        network = replace(pretrained(backbone), frozen_statistics=False)
        one = replace(one, segmenter=replace(one.segmenter, backbone=network), start_from="")
    return replace(base, stage_one=one,
                   inference=replace(base.inference, results=("panoptic",), panoptic=TubePanopticConfig()))


def _run(data: str, backbone: str, row: Row) -> Recipe:
    videos = row.videos
    return Recipe(
        name=f"{data}_tube_link_{backbone}",
        about=f"{videos.title} val, Tube-Link, {TITLES[backbone]}; "
              f"{f'expect {row.expect}' if row.expect else 'no published score'}",
        dataset=videos.dataset, shards=videos.shards,
        stage_one=StageOneConfig(
            segmenter=TubeLinkConfig(num_classes=videos.classes,
                                     backbone=replace(BACKBONES[backbone], frozen_statistics=False),
                                     query_decoder=Mask2FormerDecoderConfig(num_queries=row.queries)),
            losses=Mask2FormerLossConfig(),
            start_from=f"runs/coco_mask2former_panoptic_{backbone}/stage_one/model",
            input=InputConfig(clip_frames=row.clip_frames, frame_stride=row.stride, sampling="windows",
                              samples_per_video=videos.repeats, refuse=RefusalConfig(empty="any"),
                              batch_size=row.batch, copy_paste=None, augment=videos.augment),
            optimizer=optimizer(*map(row.steps, row.drops or (row.epochs - 1,)), decay=BACKBONE_DECAYS,
                                frozen=_frozen(row.frozen_stages)),
            fit=FitConfig(steps=row.steps(row.epochs))),
        inference=InferenceConfig(results=("semantic",), clip_frames=row.test_frames, resize=ResizeConfig()),
        cluster=replace(CLUSTER, workers=row.batch))


def _frozen(stages: int) -> tuple[str, ...]:
    """The names of Swin's first stages with their output norms; timm counts a step down to the stage after it."""
    if not stages:
        return ()
    names = ["patch_embed", *(f"layers_{stage}." for stage in range(stages)), f"layers_{stages}.downsample"]
    norms = [f"backbone.output_norms.{stage}." for stage in range(stages)]
    return (*(f"backbone.network.{name}" for name in names), *norms)


RECIPES: dict[str, Callable[[], Recipe]] = {
    f"{data}_tube_link_{backbone}": partial(recipe, data, backbone)
    for recipe, rows in ((panoptic, PANOPTIC), (semantic, SEMANTIC)) for data, backbone in rows}
