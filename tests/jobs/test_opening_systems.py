"""A system is the same wherever it is opened, and an untrained one is the recipe's seed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from jobs.models import lineage, load_segmenter, load_system, open_system, read_card, untrained_segmenter
from model.association import MemoryBufferConfig
from model.inference import InferenceConfig
from model.labels import ClassInfo, ClassTable
from pipeline.clips import FolderSource, StoredVideoSource
from pipeline.foreign_files import own_json
from pipeline.shards import ShardSet
from pipeline.system import System
from tests.tiny_models import tiny_video_kmax

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_an_untrained_system_is_decided_by_the_seed(finished_run):
    stage = finished_run.recipe.stage_one
    another = replace(finished_run.recipe, stage_one=replace(stage, fit=replace(stage.fit, seed=7)))
    recipes = (finished_run.recipe, finished_run.recipe, another)
    one, same, other = (untrained_segmenter(recipe).state_dict() for recipe in recipes)
    assert all(one[name].equal(same[name]) for name in one)
    assert not all(one[name].equal(other[name]) for name in one)


def test_a_finished_segmenter_is_rebuilt_from_the_file_beside_it_alone(finished_run):
    segmenter, card = load_segmenter(finished_run.recipe.segmenter_folder)
    assert not segmenter.training
    assert not any(parameter.requires_grad for parameter in segmenter.parameters())
    assert (tuple(card["input_size"]), card["clip_frames"]) == ((64, 64), 2)


def test_a_model_of_another_data_set_is_refused_by_name(finished_run):
    classes = ShardSet(finished_run.recipe.shards_of("val")).classes
    with pytest.raises(ValueError, match=r"trained on the classes of .*these shards have those of other"):
        open_system(finished_run.recipe, "near_online", replace(classes, name="other"))


def test_a_model_converted_without_its_data_neither_scores_nor_predicts(finished_run, tmp_path):
    recipe = finished_run.copy(tmp_path / "run")
    path = recipe.segmenter_folder / "model.json"
    card = own_json(path, cure="")
    path.write_text(json.dumps(card | {"classes": ClassTable.numbered(len(card["classes"]["classes"])).to_json()}))
    for classes in (None, ShardSet(recipe.shards_of("val")).classes):
        with pytest.raises(ValueError, match=r"have no names, and stuff counts as things.*--set dataset\.root"):
            open_system(recipe, "near_online", classes)


def test_a_head_links_no_segments_and_clips_cannot_overlap_whole(finished_run):
    system = open_system(finished_run.recipe, "offline")
    linking = replace(system.inference, association=MemoryBufferConfig())
    with pytest.raises(ValueError, match=r"panoptic offline with association hungarian or links, not memory_buffer"):
        replace(system, inference=linking)
    with pytest.raises(ValueError, match=r"overlap=1 needs longer clips than 1 frames"):
        replace(system, head=None, inference=linking, clip_frames=1)
    with pytest.raises(ValueError, match=r"video_kmax makes panoptic offline, not tracks"):
        replace(system, inference=replace(system.inference, results=("tracks",)))


def test_small_frames_fill_the_network_where_that_is_asked_for_and_their_maps_come_back_at_their_size(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))
    source = FolderSource(tmp_path)
    classes = ClassTable("two", tuple(
        ClassInfo(number, f"class {number}", True, (128, 128, 128)) for number in range(2)))
    segmenter = tiny_video_kmax(num_classes=2).build().eval()
    for enlarge, size in ((False, (24, 40)), (True, (48, 80))):
        system = System(segmenter=segmenter, head=None, classes=classes, clip_frames=1, size=(64, 80), made_by={},
                        inference=InferenceConfig(enlarge=enlarge))
        (clip, _), = system.clip_predictions(source)
        assert clip.real_pixels[0, 0, :size[0], :size[1]].sum() == clip.real_pixels.sum() == size[0] * size[1]
        assert system.predict(source).panoptic.frames[0].shape == (24, 40)


def test_a_head_in_the_place_of_a_segmenter_is_named(finished_run):
    with pytest.raises(ValueError, match="holds a head, a segmenter is needed"):
        load_segmenter(finished_run.recipe.head_folder)


def test_the_lineage_of_a_model_names_its_weights_its_inputs_and_the_code(finished_run):
    card = read_card(finished_run.recipe.head_folder)
    assert lineage(finished_run.recipe.head_folder) == {
        "sha256": card["weights_sha256"], "code": card["code"]["commit"], "code_changed": card["code"]["changed"],
        "recipe": "tiny", "cache": card["cache_fingerprint"], "segmenter": card["segmenter_sha256"]}


@pytest.mark.parametrize("mode", ["near_online", "offline"])
def test_a_finished_run_predicts_by_itself_as_its_recipe_does(finished_run, mode):
    """No recipe is at hand; the default is the best mode that the folder holds models for."""
    shards = ShardSet(finished_run.recipe.shards_of("val"))
    source = StoredVideoSource(shards, shards.videos[0])
    with_recipe = open_system(finished_run.recipe, mode)
    alone = load_system(finished_run.recipe.run_folder, mode=mode)
    assert alone.made_by == with_recipe.made_by
    theirs, ours = (system.predict(source).panoptic for system in (with_recipe, alone))
    np.testing.assert_array_equal(list(ours.frames), list(theirs.frames))
    assert dict(ours.segments) == dict(theirs.segments)
    assert load_system(finished_run.recipe.run_folder).made_by["mode"] == "offline"


def test_a_head_of_another_folder_needs_the_run_of_its_segmenter(finished_run, tmp_path):
    shutil.copytree(finished_run.recipe.run_folder / "stage_two", tmp_path / "head" / "stage_two")
    with pytest.raises(FileNotFoundError, match="no finished model"):
        load_system(tmp_path / "head")
    system = load_system(tmp_path / "head", segmenter=finished_run.recipe.run_folder)
    assert system.made_by == load_system(finished_run.recipe.run_folder).made_by
    with pytest.raises(ValueError, match="choose 'near_online' or 'offline'"):
        load_system(finished_run.recipe.run_folder, mode="untrained")


def test_a_model_of_an_earlier_version_is_used_with_its_recipe_or_with_settings(finished_run, tmp_path):
    """Cards had no inference settings, and their configs no kind."""
    recipe = finished_run.copy(tmp_path / "run")
    for folder in (recipe.segmenter_folder, recipe.head_folder):
        card = own_json(folder / "model.json", cure="")
        del card["inference"]
        del card["config"]["kind"]
        (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"earlier version.*give inference=InferenceConfig"):
        load_system(recipe.run_folder)
    system = load_system(recipe.run_folder, inference=recipe.inference)
    assert system.segmenter.config == recipe.stage_one.segmenter
    assert system.head.config == recipe.stage_two.head
    assert open_system(recipe, "offline").made_by == system.made_by
