"""A video from its frames to its result, against the network in float32 with plain deformable attention.

The baseline samples deformable attention with `grid_sample`, has its batch norms, and reads each clip when the network
asks for it. Ours adds up weighted rows, folds batch norms into convolutions, reads the next clip meanwhile, and
computes once in float32 and, where the hardware has bfloat16, once in that (precision "auto"). The networks are
untrained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.deformable_attention import plain_sampling
from benchmarks.harness import Results
from jobs.recipes import find_recipe
from model.contracts import VideoResults
from model.folding import fold_norms
from model.precision import TestPrecision, has_bf16
from pipeline.datasets.synthetic import world_classes
from pipeline.system import System

MEASURES = ("model/folding.py", "model/layers/deformable_sampling.py", "model/precision.py",
            "pipeline/clips/reading.py", "pipeline/system.py")


@dataclass(frozen=True, kw_only=True)
class Case:
    """The networks of a recipe, and the video."""

    recipe: str
    frames: int
    size: tuple[int, int]       # pixels
    repeats: int


SIZES = {"toy": (Case(recipe="tiny", frames=4, size=(48, 64), repeats=1),),
         "full": (Case(recipe="demo", frames=24, size=(120, 160), repeats=5),
                  Case(recipe="vipseg_video_kmax_r50_near_online", frames=2, size=(720, 1280), repeats=2))}


def run(size: Iterable[Case], results: Results) -> None:
    """Every case in each precision of this machine."""
    precisions: tuple[TestPrecision, ...] = ("fp32", "auto") if has_bf16("cpu") else ("fp32",)
    for case in size:
        video = Noise(case)
        before = partial(predict_as_before, system(case, "fp32"), video)
        for precision in precisions:
            results.compare(f"{case.recipe}, {case.frames} frames, {precision}", baseline=before, repeats=case.repeats,
                            ours=partial(folded(system(case, precision)).predict, video),
                            agree=partial(agree, least=share_that_agrees(precision)), memory=True)


class Noise:
    """A video of noise, which is decoded anew whenever it is read."""

    video_id = "noise"

    def __init__(self, case: Case) -> None:
        self.size = case.size
        self.frame_names = tuple(f"{frame:05d}" for frame in range(case.frames))

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        """See `VideoSource`."""
        return [np.random.default_rng(frame).integers(0, 256, (*self.size, 3), np.uint8)
                for frame in range(start, stop)]


def system(case: Case, precision: TestPrecision) -> System:
    """The near-online system of a recipe, whose results are full of segments though it learned nothing."""
    recipe = find_recipe(case.recipe)
    panoptic = replace(recipe.inference.panoptic, thing=0.0, stuff=0.0, pixel=0.05, overlap=0.0)
    classes = world_classes(find_recipe("demo").world)
    stage = recipe.stage_one
    torch.manual_seed(stage.fit.seed)
    segmenter = replace(stage.segmenter, num_classes=len(classes)).build().eval().requires_grad_(False)
    return System(segmenter=segmenter, head=None, classes=classes, clip_frames=stage.segmenter_frames, made_by={},
                  inference=replace(recipe.inference, panoptic=panoptic, precision=precision),
                  size=stage.input.augment.size)


def folded(one: System) -> System:
    """The same system as `jobs.models` opens it."""
    fold_norms(one.segmenter)
    return one


def predict_as_before(one: System, video: Noise) -> VideoResults:
    """The results with `grid_sample`, reading and computing in turns."""
    with (patch("model.layers.deformable_attention.sample_deformable", plain_sampling),
          patch("pipeline.system.ahead", _in_turns)):
        return one.predict(video)


def _in_turns(clips: Iterable, *, count: int) -> Iterator:
    yield from clips


def share_that_agrees(precision: TestPrecision) -> float:
    """Pixels that must agree, as a share: random weights decide between queries by a hair."""
    return 0.8 if precision == "auto" and has_bf16("cpu") else 0.99


def agree(ours: VideoResults, before: VideoResults, *, least: float) -> None:
    """Most pixels have the same id."""
    same = [np.mean(one == other) for one, other in zip(_maps(ours), _maps(before), strict=True)]
    assert np.mean(same) >= least, f"only {np.mean(same):.1%} of the pixels agree"


def _maps(results: VideoResults) -> list[np.ndarray]:
    return [np.asarray(frame) for frame in results.panoptic.frames]
