"""Recipes by name. A recipe is a function, so that a variant is an earlier one with a few fields replaced."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from jobs.recipes import (
    ablations,
    coco,
    coco_mask2former,
    kitti_step,
    tiny,
    tiny_identity,
    tiny_tube_link,
    tiny_vita,
    tube_link,
    video_kmax,
    vipseg,
    vita,
    youtube_vis,
)
from jobs.recipes.schema import Recipe

RECIPES: dict[str, Callable[[], Recipe]] = {
    **{recipe.__name__: recipe for recipe in (tiny.tiny, tiny.demo, tiny.synthetic, tiny.synthetic_hard)},
    **tiny_identity.RECIPES, **tiny_tube_link.RECIPES, **tiny_vita.RECIPES,
    **coco.RECIPES, **vipseg.RECIPES, **vipseg.VARIANTS, **ablations.RECIPES, **video_kmax.RECIPES,
    **kitti_step.RECIPES, **coco_mask2former.RECIPES, **youtube_vis.RECIPES, **youtube_vis.VARIANTS,
    **tube_link.RECIPES, **vita.RECIPES,
}


def find_recipe(name: str) -> Recipe:
    """Build a recipe. Raises ValueError listing what there is, nearest names first."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"there is no recipe {name!r}; {hint}All recipes: {', '.join(RECIPES)}")
    return RECIPES[name]()
