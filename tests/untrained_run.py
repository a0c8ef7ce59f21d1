"""A run whose segmenter was never trained, in a fraction of a second: for everything but the quality of results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs import make_shards
from jobs.models import save_model, segmenter_card, untrained_segmenter
from jobs.recipes.schema import Recipe
from pipeline.datasets.synthetic import world_classes
from pipeline.shards import ShardSet
from pipeline.visualise.video_writer import VideoWriter
from tests.runs import here, tiny_run


def untrained_run(folder: Path) -> Recipe:
    """The recipe `tiny` in a folder, in this process, with a segmenter and no cross-clip head."""
    recipe = here(tiny_run(folder))
    save_model(recipe.segmenter_folder, untrained_segmenter(recipe).state_dict(),
               segmenter_card(recipe, world_classes(recipe.world), shards=""))
    return recipe


def untrained_on_shards(folder: Path) -> Recipe:
    """The same with shards of its world, of which the segmenter has the classes."""
    recipe = here(tiny_run(folder))
    make_shards.main(recipe)
    shards = ShardSet(recipe.shards_of("train"))
    save_model(recipe.segmenter_folder, untrained_segmenter(recipe).state_dict(),
               segmenter_card(recipe, shards.classes, shards.fingerprint))
    return recipe


def predicting(recipe: Recipe, given: Path | str | tuple[str, ...], output: Path, **changes: Any) -> Recipe:
    """The same recipe, predicting `given` into a folder."""
    given = given if isinstance(given, tuple) else str(given)
    return replace(recipe, predict=replace(recipe.predict, input=given, output=str(output), **changes))


def moving_square(frame: int, height: int = 50, width: int = 72) -> np.ndarray:
    """H W 3: a square that moves to the right, brighter in every frame."""
    picture = np.full((height, width, 3), 40 + 10 * frame, np.uint8)
    picture[10:30, 5 + 4 * frame:25 + 4 * frame] = (200, 40, 40)
    return picture


def write_video(path: Path, frames: int = 5, *, fps: float = 6) -> Path:
    """A video of `moving_square`."""
    with VideoWriter(path, fps=fps) as video:
        for frame in range(frames):
            video.write(moving_square(frame))
    return path
