"""VITA learning from scratch on two CPU cores: a frame detector, then tracks from its frozen queries.

The same worlds and the same small network as `jobs.recipes.tiny_tube_link`, frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jobs.recipes.schema import Recipe
from jobs.recipes.tiny_tube_link import THINGS, synthetic_vis, tiny_query_decoder, tiny_tube_link, tiny_vis
from jobs.training.optimizer import OptimizerConfig
from model.cross_clip.vita import VitaHeadConfig
from model.inference import InferenceConfig
from model.losses.vita import VitaLossConfig
from model.postprocess.instances import TrackConfig
from model.segmenters.mask2former import Mask2FormerConfig

WINDOW = 6      # frames of a training window, and of the encoder's


def tiny_mask2former(*, layers: tuple[int, int] = (2, 6)) -> Mask2FormerConfig:
    """The frame detector in about a million parameters. layers: of pixel and query decoder."""
    like = tiny_tube_link(THINGS, layers=layers)
    return Mask2FormerConfig(num_classes=THINGS, backbone=like.backbone, pixel_decoder=like.pixel_decoder,
                             query_decoder=replace(tiny_query_decoder(layers[1]), positions="frame"))


def tiny_head() -> VitaHeadConfig:
    """As deep as the paper says the encoder is, with half of its decoder."""
    return VitaHeadConfig(num_classes=THINGS, dim=64, embedding=64, pixel_dim=64, frame_queries=16, num_queries=16,
                          heads=4, ffn=256, encoder_layers=3, decoder_layers=3, window=WINDOW)


def tiny_vita() -> Recipe:
    """The whole run of VITA in about a minute: proves that everything runs. Score: any."""
    base = tiny_vis()
    one = base.stage_one
    two = base.stage_two
    return replace(
        base, name="tiny_vita", about="the whole base of VITA in about a minute; no score to expect",
        stage_one=replace(one, segmenter=tiny_mask2former(layers=(1, 3)), input=replace(one.input, clip_frames=1)),
        stage_two=replace(two, head=replace(tiny_head(), encoder_layers=2, decoder_layers=2, window=3),
                          losses=VitaLossConfig(), optimizer=replace(two.optimizer, multipliers=())),
        inference=InferenceConfig(results=("tracks",), tracks=TrackConfig(candidates=10, scored="video")))


def synthetic_vita() -> Recipe:
    """Tracks by VITA on a frozen detector, about 16 minutes on two cores. The head learns from scratch."""
    base = tiny_vita()
    like = synthetic_vis()
    one = like.stage_one
    two = like.stage_two
    return replace(
        base, name="synthetic_vita", about="synthetic world, easy; VITA on a frozen detector, expect AP50 of about 70",
        world=like.world, cache=like.cache,
        stage_one=replace(one, segmenter=tiny_mask2former(), input=replace(one.input, clip_frames=1)),
        stage_two=replace(two, head=tiny_head(), losses=VitaLossConfig(), input=replace(two.input, clips=WINDOW),
                          optimizer=OptimizerConfig(lr=5e-4, warmup_steps=50, clip_norm=1.0),
                          fit=replace(two.fit, steps=2000)))


RECIPES: dict[str, Callable[[], Recipe]] = {recipe.__name__: recipe for recipe in (tiny_vita, synthetic_vita)}
