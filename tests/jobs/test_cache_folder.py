"""Every setting that reaches the clips, the views or the evidence changes the folder of the query cache; no other."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from jobs.cache_queries import cache_folder, expected_source
from jobs.config import override
from jobs.models import save_model, segmenter_card
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from model.labels import ClassTable
from pipeline.clips import AugmentConfig

# Another value of every field of the augmentation.
AUGMENT = {"size": (96, 64), "scale": (0.5, 1.0), "short_side": (48, 64), "crop": True, "flip": 0.1, "color": True,
           "color_per_frame": True, "reverse": 0.1, "pad_to": 32, "long_side": 64, "interpolation": "opencv"}


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    """The recipe `tiny` with a finished segmenter, as far as the cache asks for it."""
    return finished("tiny", tmp_path)


def finished(name: str, folder: Path) -> Recipe:
    recipe = replace(find_recipe(name), folder=str(folder))
    save_model(recipe.segmenter_folder, {}, segmenter_card(recipe, ClassTable.numbered(6), "shards"))
    return recipe


def changed(recipe: Recipe, *assignments: str) -> bool:
    return folder(override(recipe, assignments)) != folder(recipe)


def folder(recipe: Recipe) -> Path:
    return cache_folder(recipe)


@pytest.mark.parametrize("assignment", [
    "inference.enlarge=true", "inference.clip_frames=3", "inference.precision=bf16", "cache.views=2",
    "cache.dtype=float32", "cache.seed=1",
    'cache.splits=["train","val"]', "cache.evidence.pixels=47", "cache.evidence.strategy=dense"])
def test_a_setting_that_reaches_the_cache_changes_its_folder(recipe, assignment):
    assert changed(recipe, assignment)


@pytest.mark.parametrize("name", [field.name for field in fields(AugmentConfig)])
def test_the_training_augmentation_counts_where_views_are_drawn_from_it(tmp_path, name):
    recipe = finished("tiny_vis", tmp_path)
    one = recipe.stage_one
    assert getattr(one.input.augment, name) != AUGMENT[name]
    augment = replace(one.input.augment, **{name: AUGMENT[name]})
    other = replace(recipe, stage_one=replace(one, input=replace(one.input, augment=augment)))
    views = {"cache.views=2"}
    assert folder(override(other, views)) != folder(override(recipe, views))
    own = {*views, "cache.augment={\"size\": [64, 64]}"}
    assert folder(override(other, own)) == folder(override(recipe, own))        # the views have their own
    assert folder(other) == folder(recipe)                                      # there are no augmented views


def test_a_cache_of_an_earlier_version_which_had_no_precision_is_still_the_one_of_fp32(recipe):
    assert "precision" not in expected_source(recipe)
    assert expected_source(override(recipe, ["inference.precision=fp16"]))["precision"] == "fp16"


@pytest.mark.parametrize("assignment", [
    "inference.panoptic.thing=0.5", 'inference.association={"kind": "clip_wise"}', "evaluation.mode=offline",
    "stage_two.head.layers=1", "stage_two.fit.steps=9", "inference.clip_frames=2", "cluster.actors=1"])
def test_a_setting_that_the_cache_does_not_see_leaves_its_folder(recipe, assignment):
    assert not changed(recipe, assignment)
