"""Every setting that reaches the clips, the views or the evidence changes the folder of the query cache; no other."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from jobs.cache_queries import cache_folder, expected_source
from jobs.config import override, to_json
from jobs.models import read_card, save_model, segmenter_card
from jobs.recipes import find_recipe
from jobs.recipes.schema import CacheConfig, Recipe
from model.labels import ClassTable
from pipeline.clips import AugmentConfig
from pipeline.query_cache import EvidenceConfig, fingerprint
from pipeline.training_input import CopyPasteConfig

# Another value of every field of the augmentation, of copy-paste and of the cache.
AUGMENT = {"size": (96, 64), "scale": (0.5, 1.0), "short_side": (48, 64), "crop": True, "flip": 0.1, "color": True,
           "color_per_frame": True, "reverse": 0.1, "pad_to": 32, "long_side": 64, "interpolation": "opencv"}
PASTE = {"probability": 0.5, "scale": 0.7, "all_things": False, "reverse": 0.5}
CACHE = {"splits": ("train", "val"), "views": 3, "augment": AugmentConfig(size=(64, 64)), "window_frames": 8,
         "copy_paste": CopyPasteConfig(), "evidence": EvidenceConfig(pixels=47), "dtype": "float32", "seed": 1,
         "features_in_8_bits": True}


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
    "inference.enlarge=true", "inference.clip_frames=3", "inference.precision=bf16", "cache.evidence.pixels=47",
    "cache.evidence.strategy=dense"])
def test_a_setting_that_reaches_the_cache_changes_its_folder(recipe, assignment):
    assert changed(recipe, assignment)


@pytest.mark.parametrize("name", [field.name for field in fields(CacheConfig)])
def test_every_field_of_the_cache_counts_and_those_of_augmented_views_only_where_there_are_any(recipe, name):
    assert getattr(recipe.cache, name) != CACHE[name]
    views = override(recipe, ["cache.views=2"])
    for base in (recipe, views):
        other = replace(base, cache=replace(base.cache, **{name: CACHE[name]}))
        only_drawn = name in ("augment", "copy_paste", "window_frames") and base is recipe
        assert (folder(other) != folder(base)) == (not only_drawn)


@pytest.mark.parametrize("name", [field.name for field in fields(CopyPasteConfig)])
def test_every_field_of_copy_paste_counts(recipe, name):
    pasting = override(recipe, ["cache.views=2", "cache.copy_paste={}"])
    other = replace(pasting.cache.copy_paste, **{name: PASTE[name]})
    assert folder(replace(pasting, cache=replace(pasting.cache, copy_paste=other))) != folder(pasting)


def test_a_cache_of_an_earlier_version_is_found_and_read(recipe):
    """Fields that it did not have are expected to have the values that it used."""
    recipe = override(recipe, ["cache.views=4"])
    card = read_card(recipe.segmenter_folder)
    augment = to_json(recipe.stage_one.input.augment)
    first = {"segmenter": card["weights_sha256"], "input_size": card["input_size"], "enlarge": False, "clip_frames": 2,
             "cache": {"splits": ["train"], "views": 4, "dtype": "float16", "seed": 0,
                       "evidence": {"pixels": 48, "strategy": "balanced"},
                       "augment": {name: augment[name] for name in (
                           "size", "short_side", "scale", "crop", "flip", "reverse", "color")}}}
    assert expected_source(recipe) == first
    assert cache_folder(recipe).name == fingerprint(first)[:16]


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
