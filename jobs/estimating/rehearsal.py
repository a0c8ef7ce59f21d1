"""A rehearsal: the recipe's own networks on a small synthetic world, in this process.

The frames have their own size. The sides of the network input are divided by 1, 2, 4 or 8, so that large networks take
seconds too. The time of a clip then grows with its pixels, as convolutions do; attention along rows and columns grows
a little faster.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

import torch
from torch import nn

from jobs.counted_classes import for_classes
from jobs.models import without_download
from jobs.recipes.schema import CacheConfig, Recipe, StageOneConfig, StageTwoConfig
from jobs.training.loop import FitConfig
from model.segmenters import SegmenterConfig
from pipeline.datasets import DatasetConfig
from pipeline.datasets.synthetic import SyntheticConfig, world_classes

PARTS = (1, 2, 4, 8)        # of a side
SMALLEST = 32                   # side of a frame, pixels
LARGEST = 4096                  # the same, of a synthetic world
SECONDS = 8.0                   # for the clips of a rehearsal
LONG = 0.5                      # of a first call, in which what opens takes a small part
CLIPS = 24                      # that pass through the network, where a training step counts three times
STEPS = 3                       # of a training; the first makes the state of the optimizer, and is not counted
STEPS_OF_LARGE = 1              # a pass without gradients goes before it
# Layout of the world, data set, and the name of its held-out split, by the first of the results.
LAYOUTS = {"panoptic": ("vipseg", "vipseg", "val"), "tracks": ("youtube_vis", "youtube_vis", "valid"),
           "semantic": ("vspw", "vspw", "val")}
MANY = 10**9


def network_size(recipe: Recipe, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the network input for frames of a size, at test time."""
    fixed = recipe.stage_one.input.augment.size
    return fixed if recipe.inference.resize is None else recipe.inference.resize.geometry(size).padded


@dataclass(frozen=True, kw_only=True)
class Growth:
    """From the network input of a rehearsal to the recipe's own: how many times the seconds, and the pixels."""

    part: int           # by which the sides are divided in the rehearsal
    seconds: float
    pixels: float


def growth_of_clip(recipe: Recipe, size: tuple[int, int], segmenter: nn.Module) -> tuple[Growth, float]:
    """The largest affordable rehearsal for frames of a size, and the seconds of a clip in it.

    A part of the seconds does not grow with the pixels, so clips of two sizes say how much they grow. As many clips
    pass at once as in the recipe. segmenter: of the recipe, with any weights and any number of classes.
    """
    canvas = network_size(recipe, size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    segmenter.eval().to(device)
    together = recipe.inference.clips_together
    tried: list[tuple[int, float, int]] = []        # part, seconds, pixels
    for part in reversed([part for part in PARTS if part == 1 or min(canvas) // part >= SMALLEST]):
        height, width = divided(canvas, part)
        clips = torch.zeros(together, recipe.stage_one.segmenter_frames, 3, height, width, dtype=torch.uint8,
                            device=device)
        seconds = second_call(partial(segmenter, clips), enough=inf if tried else LONG) / together
        tried.append((part, seconds, height * width))
        if CLIPS * tried[-1][1] > SECONDS and len(tried) > 1:
            break
    (_, shorter, fewer), (_, longer, more) = tried[-2:] if len(tried) > 1 else (tried[0], tried[0])
    part, seconds, pixels = next((one for one in reversed(tried) if CLIPS * one[1] <= SECONDS), tried[0])
    of_pixel = max(longer - shorter, 0.0) / max(more - fewer, 1)
    whole = longer + of_pixel * (math.prod(canvas) - more)
    return Growth(part=part, seconds=whole / seconds, pixels=math.prod(canvas) / pixels), seconds


def second_call(function: Callable[[], object], *, enough: float) -> float:
    """Seconds of the processor for a call after a first one, which only counts where it took `enough` seconds."""
    with torch.inference_mode():
        before = time.process_time()
        function()
        if (first := time.process_time() - before) > enough:
            return first
        before = time.process_time()
        function()
    return time.process_time() - before


def divided(size: tuple[int, int], part: int) -> tuple[int, int]:
    """A size with sides divided by `part`, as a network takes them: 32 n, or 1 + 32 n where they are odd now."""
    if part == 1:
        return size
    return tuple(max(side // part // 32, 1) * 32 + side % 2 for side in size)


def rehearsed(recipe: Recipe, folder: Path, *, size: tuple[int, int], frames: int, part: int) -> Recipe:
    """The recipe for a world of a few videos in a folder, with a few steps of each training, without Ray.

    size, frames: of the real videos.
    """
    is_small = part == 1
    length = min(frames, 24 if is_small else recipe.stage_one.input.clip_frames)
    canvas = divided(network_size(recipe, size), part)
    layout, dataset, held_out = LAYOUTS[recipe.inference.results[0]]
    steps = STEPS if is_small else STEPS_OF_LARGE
    clips = max(recipe.stage_one.input.batch_size // recipe.cluster.workers, 1)
    if not is_small:
        clips = -(-2 // recipe.stage_one.input.clip_frames)     # batch norm needs two frames
    height, width = (min(max(side, SMALLEST), LARGEST) for side in size)
    world = SyntheticConfig(videos_train=max(clips, 8 if is_small else 2), videos_val=2 if is_small else 1,
                            frames=length, height=height, width=width, layout=layout)
    small = replace(
        recipe, folder=str(folder), stage_one_from="", shards_from="", world=world, count_classes=False,
        train_split="train", dataset=DatasetConfig(name=dataset, root="world"),
        shards=replace(recipe.shards, resize_height=None),
        stage_one=_stage_one(recipe.stage_one, without_download(recipe.stage_one.segmenter), clips, canvas,
                             steps=steps),
        cache=CacheConfig(evidence=recipe.cache.evidence, dtype=recipe.cache.dtype,
                          features_in_8_bits=recipe.cache.features_in_8_bits),
        stage_two=None if recipe.stage_two is None else _stage_two(
            recipe.stage_two, recipe.cluster.workers, steps=steps),
        inference=replace(recipe.inference, resize=None),
        evaluation=replace(recipe.evaluation, split=held_out, mode="near_online", association="", predictions="",
                           output="", video_sets="", overlays=0),
        predict=replace(recipe.predict, mode=None),
        cluster=replace(recipe.cluster, in_process=True, workers=1))
    classes = world_classes(world)
    if layout == "youtube_vis":         # which has no stuff
        classes = replace(classes, classes=tuple(known for known in classes.classes if known.is_thing))
    return for_classes(small, classes)


def _stage_one(stage: StageOneConfig, segmenter: SegmenterConfig, clips: int, canvas: tuple[int, int], *, steps: int
               ) -> StageOneConfig:
    augment = replace(stage.input.augment, size=canvas, pad_to=None, short_side=(), long_side=None)
    given = replace(stage.input, batch_size=clips, workers=0, augment=augment, refuse=None, streaming=False,
                    stream_from="", sampling="videos", pseudo_video=None)
    joint = stage.joint and replace(stage.joint, start_from="")
    return replace(stage, segmenter=segmenter, input=given, start_from="", joint=joint, stills=None, train=True,
                   validation=None, fit=_few_steps(stage.fit, steps))


def _stage_two(stage: StageTwoConfig, workers: int, *, steps: int) -> StageTwoConfig:
    given = replace(stage.input, batch_size=max(stage.input.batch_size // workers, 1), sampling="videos",
                    test_view=True)
    links = stage.links and replace(stage.links, input=replace(stage.links.input, sampling="videos", test_view=True),
                                    fit=_few_steps(stage.links.fit, steps))
    return replace(stage, input=given, fit=_few_steps(stage.fit, steps), start_from="", links=links, validation=None)


def _few_steps(fit: FitConfig, steps: int) -> FitConfig:
    return replace(fit, steps=steps, accumulate=1, log_every=1, checkpoint_every=MANY, ema=0.0)
