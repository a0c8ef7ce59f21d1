"""Draw the picture at the top of the README: some frames of a held-out video, and below them the result.

In:     a finished run (`make demo`): its shards and models.
Out:    <folder>/demo.png. The README shows it as docs/demo.png.
Again:  draws it anew.
Cost:   seconds.

    python -m jobs.demo_picture
    cp runs/demo/demo.png docs/demo.png
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jobs.console import say
from jobs.counted_classes import with_counted_classes
from jobs.models import open_system
from jobs.recipes.schema import Recipe
from jobs.verb import run
from pipeline.clips import StoredVideoSource
from pipeline.files import atomic_write
from pipeline.images import encode_png
from pipeline.shards import ShardSet
from pipeline.system import System
from pipeline.visualise.drawing import enlarged
from pipeline.visualise.overlay import GAP, beside, overlay
from pipeline.visualise.painted import pictured

FRAMES = 4          # side by side
HEIGHT = 192        # lines of a frame at least; small frames are enlarged, since names would cover them


def main(recipe: Recipe) -> dict[str, Any]:
    """Draw the first video of the evaluated split by the last mode of the recipe; returns where the picture lies."""
    recipe = with_counted_classes(recipe)
    shards = ShardSet(recipe.shards_of(recipe.evaluation.split))
    picture = frames_and_result(open_system(recipe, recipe.modes[-1], shards.classes), shards)
    path = recipe.run_folder / "demo.png"
    atomic_write(path, encode_png(picture))
    say(f"picture: {path}")
    return {"picture": str(path)}


def frames_and_result(system: System, shards: ShardSet, *, video: int = 0, count: int = FRAMES) -> np.ndarray:
    """H W 3 uint8: `count` frames of a video, spread over its time, in a row, and the result in a row below them."""
    source = StoredVideoSource(shards, shards.videos[video])
    result = pictured(system.predict(source), shards.classes)
    chosen = np.linspace(0, len(result.frame_names) - 1, count).round().astype(int).tolist()
    scale = max(1, -(-HEIGHT // source.size[0]))
    maps = dict(enumerate(result.frames))
    frames = [enlarged(source.frames(index, index + 1)[0], scale) for index in chosen]
    drawn = [overlay(frame, enlarged(maps[index], scale), result.segments, shards.classes)
             for index, frame in zip(chosen, frames)]
    rows = [beside(frames), beside(drawn)]
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([rows[0], gap, rows[1]])


if __name__ == "__main__":
    run(main, default_recipe="demo")
