"""Tube-Link and MaXTron on it, learning from scratch on two CPU cores: tracks, panoptic and semantic video.

The same world as `jobs.recipes.tiny`, written in the layouts of YouTube-VIS, VIPSeg and VSPW. Masked attention learns
with the published losses; what is small here is the network, the number of points and the schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jobs.recipes.schema import EvaluationConfig, Recipe
from jobs.recipes.tiny import CLASSES, SHORT_RUN, synthetic, tiny
from jobs.training.loop import FitConfig
from jobs.training.optimizer import OptimizerConfig
from model.association.tube_linking import TubeLinkingConfig
from model.backbone import BackboneConfig
from model.cross_clip.tube_link import TubeLinkHeadConfig
from model.inference import InferenceConfig
from model.losses.cross_clip import MaskCrossClipLossConfig
from model.losses.linking import LinkingLossConfig
from model.losses.mask2former import Mask2FormerLossConfig
from model.losses.points import PointConfig
from model.pixel_decoders.mask2former import DeformableTrajectoryConfig, Mask2FormerPixelDecoderConfig
from model.postprocess.tube_panoptic import TubePanopticConfig
from model.query_decoders.mask2former import Mask2FormerDecoderConfig
from model.segmenters.tube_link import TubeLinkConfig
from pipeline.datasets import DatasetConfig
from pipeline.query_cache import EvidenceConfig

THINGS = 3                      # classes of things in the world
STUFF_CLASSES = (0, 1, 2)       # of the panoptic world, where stuff comes first
POINTS = 512                    # of 1152 pixels of a clip at stride 4


def tiny_tube_link(num_classes: int, *, layers: tuple[int, int] = (2, 6), **parts) -> TubeLinkConfig:
    """Tube-Link with MaXTron's within-clip tracking in about a million parameters.

    layers: of pixel and query decoder; (2, 6) learn as much in 1000 steps as (1, 3) in 1500.
    """
    return TubeLinkConfig(
        num_classes=num_classes, backbone=BackboneConfig(name="test_resnet", batch_norm=SHORT_RUN),
        within_clip=DeformableTrajectoryConfig(heads=4, ffn=128, scale=1e-2, residual_dropout=0.0),
        pixel_decoder=Mask2FormerPixelDecoderConfig(dim=64, embedding=64, heads=4, ffn=128, layers=layers[0]),
        query_decoder=tiny_query_decoder(layers[1]), **parts)


def tiny_query_decoder(layers: int) -> Mask2FormerDecoderConfig:
    """Masked attention of 16 queries."""
    return Mask2FormerDecoderConfig(num_queries=16, dim=64, heads=4, ffn=256, layers=layers)


def tiny_vis() -> Recipe:
    """All verbs for tracks in about a minute: proves that everything runs. Score: any."""
    base = tiny()
    one = base.stage_one
    two = base.stage_two
    return replace(
        base, name="tiny_vis", about="all verbs for tracks in about a minute; no score to expect",
        dataset=DatasetConfig(name="youtube_vis", root="world"), world=replace(base.world, layout="youtube_vis"),
        stage_one=replace(one, segmenter=tiny_tube_link(THINGS, layers=(1, 3)),
                          losses=Mask2FormerLossConfig(points=PointConfig(count=128))),
        stage_two=replace(two, head=TubeLinkHeadConfig(num_classes=THINGS, dim=64, embedding=64, layers=2,
                                                         attention_dropout=0.0, aspp_dropout=0.0),
                          losses=MaskCrossClipLossConfig(),
                          optimizer=replace(two.optimizer, multipliers=(("predictor", 0.1),))),
        inference=InferenceConfig(results=("tracks",), last_clip="shorten"), evaluation=EvaluationConfig(split="valid"))


def synthetic_vis() -> Recipe:
    """Tracks: expect AP50 of 60 or more on held-out videos, in at most 40 minutes on two cores."""
    base = tiny_vis()
    like = synthetic()
    one = base.stage_one
    two = base.stage_two
    return replace(
        base, name="synthetic_vis", about="synthetic world, easy; expect track AP50 60 or more near-online",
        world=replace(like.world, layout="youtube_vis"),
        stage_one=replace(
            one, segmenter=tiny_tube_link(THINGS), input=like.stage_one.input,
            losses=Mask2FormerLossConfig(points=PointConfig(count=POINTS)),
            optimizer=OptimizerConfig(lr=2e-3, warmup_steps=50, clip_norm=5.0),
            fit=FitConfig(steps=3000, log_every=100, checkpoint_every=500)),
        cache=replace(base.cache, evidence=EvidenceConfig(pixels=256)),
        stage_two=replace(two, links=like.stage_two.links, input=like.stage_two.input,
                          optimizer=replace(two.optimizer, lr=1e-4, warmup_steps=20),
                          fit=FitConfig(steps=300, log_every=50, checkpoint_every=300)))


def synthetic_vis_hard() -> Recipe:
    """Tracks in the hard world, where things hide for longer than a clip behind their twins."""
    base = synthetic_vis()
    return replace(base, name="synthetic_vis_hard", about="synthetic world, hard; tracks break where things hide",
                   world=replace(base.world, preset="hard", videos_train=600),
                   stage_one=replace(base.stage_one, fit=replace(base.stage_one.fit, steps=2000)))


def synthetic_vps() -> Recipe:
    """Panoptic video by Tube-Link: reserved stuff queries, learned linking, quasi-dense tracking."""
    base = synthetic_vis()
    like = synthetic()
    one = base.stage_one
    return replace(
        base, name="synthetic_vps", about="synthetic world, easy; Tube-Link's panoptic video, expect VPQ 60 or more",
        dataset=like.dataset, world=like.world,
        stage_one=replace(
            one, segmenter=tiny_tube_link(CLASSES, stuff_classes=STUFF_CLASSES,
                                          linking=TubeLinkingConfig(dim=64, heads=4, ffn=128)),
            losses=replace(one.losses, stuff_classes=STUFF_CLASSES),  # type: ignore[arg-type]
            linking=LinkingLossConfig(points=POINTS, stuff_classes=STUFF_CLASSES, segmentation="sum"),
            input=replace(one.input, clip_frames=4), fit=replace(one.fit, steps=1800)),
        stage_two=None, evaluation=EvaluationConfig(),
        inference=InferenceConfig(panoptic=TubePanopticConfig(score=0.5), clip_frames=2))


def synthetic_vss() -> Recipe:
    """Semantic video by Tube-Link, on the world in VSPW's layout."""
    base = synthetic_vis()
    one = base.stage_one
    return replace(
        base, name="synthetic_vss", about="synthetic world, easy; semantic video, expect mIoU 70 or more",
        dataset=DatasetConfig(name="vspw", root="world"), world=replace(base.world, layout="vspw"),
        stage_one=replace(one, segmenter=tiny_tube_link(CLASSES), fit=replace(one.fit, steps=1500)),
        stage_two=None, evaluation=EvaluationConfig(), inference=InferenceConfig(results=("semantic",)))


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe for recipe in (tiny_vis, synthetic_vis, synthetic_vis_hard, synthetic_vps, synthetic_vss)}
