"""How many frames pass through the segmenter for those of a video: clips may share some, and repeat the last one."""

from __future__ import annotations

from jobs.recipes.schema import Recipe
from model.inference.makers import shared_frames


def clip_length(recipe: Recipe) -> int:
    """Frames of a clip at test time."""
    return recipe.inference.clip_frames or recipe.stage_one.segmenter_frames


def passes_of_frame(recipe: Recipe, frames: int, *, offline: bool) -> float:
    """The number of times that a frame of a video passes through the segmenter where it is scored, on average.

    frames: of the video. offline: whether a cross-clip head, which needs full clips, makes the result.
    """
    if recipe.inference.last_clip == "shorten" and not offline:
        return 1.0
    length = clip_length(recipe)
    shared = shared_frames(recipe.inference)
    clips = -(-max(frames - shared, 1) // (length - shared))
    return clips * length / frames
