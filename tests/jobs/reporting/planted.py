"""A scored split whose predictions are the truth with planted faults, so that its report is known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jobs import evaluate, make_shards
from jobs.recipes.schema import Recipe
from model.contracts import PanopticVideo, VideoResults
from model.labels import VOID
from pipeline.predictions import PredictionWriter
from pipeline.shards import ShardSet
from tests.runs import here, scored, tiny_run


def scored_with_faults(folder: Path, change: Callable[[PanopticVideo], PanopticVideo], **changes: Any) -> Recipe:
    """The recipe of a run whose predictions of every video are its truth after `change`, and are scored."""
    recipe = here(tiny_run(folder, stage_two=None, **changes))
    recipe = replace(recipe, world=replace(recipe.world, videos_train=2, videos_val=3, frames=8, height=64, width=64))
    make_shards.main(recipe)
    shards = ShardSet(recipe.shards_of("val"))
    writer = PredictionWriter(folder=folder / "planted", classes=shards.classes, made_by={"by": "a test"})
    for video in shards.videos:
        writer.write(VideoResults(panoptic=change(shards.truth(video))))
    writer.finish([video.video_id for video in shards.videos])
    recipe = scored(recipe, predictions=str(folder / "planted"))
    evaluate.main(recipe)
    return recipe


def exchanged(video: PanopticVideo, *, frame: int) -> PanopticVideo:
    """From `frame` on, the first two things of the video have each other's ids; a lone thing disappears from it on."""
    things = [panoptic for panoptic, segment in video.segments.items() if segment.track]
    frames = [ids.copy() for ids in video.frames]
    for ids in frames[frame:]:
        ids[np.isin(ids, things[:2])] = [_other(things, panoptic) for panoptic in ids[np.isin(ids, things[:2])]]
    present = set(np.unique(frames).tolist())
    return replace(video, frames=frames, segments={i: segment for i, segment in video.segments.items() if i in present})


def _other(things: list[int], panoptic: int) -> int:
    if len(things) < 2:
        return VOID
    return things[1] if panoptic == things[0] else things[0]
