"""A system is the same wherever it is opened, and an untrained one is the recipe's seed."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from jobs.inference import System, open_system
from jobs.models import lineage, load_segmenter, untrained_segmenter
from jobs.recipes.schema import EvaluationConfig
from jobs.training.checkpoint import read_card
from model.association import MemoryBufferConfig
from model.labels import ClassInfo, ClassTable
from model.segmenters import build_segmenter
from pipeline.clips import FolderSource
from pipeline.shards import ShardSet
from tests.tiny_models import tiny_video_kmax

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_an_untrained_system_is_decided_by_the_seed(road):
    stage = road.recipe.stage_one
    another = replace(road.recipe, stage_one=replace(stage, fit=replace(stage.fit, seed=7)))
    one, same, other = (untrained_segmenter(r).state_dict() for r in (road.recipe, road.recipe, another))
    assert all(one[name].equal(same[name]) for name in one)
    assert not all(one[name].equal(other[name]) for name in one)


def test_a_finished_segmenter_is_rebuilt_from_the_file_beside_it_alone(road):
    segmenter, card = load_segmenter(road.recipe.segmenter_folder)
    assert not segmenter.training
    assert not any(parameter.requires_grad for parameter in segmenter.parameters())
    assert (tuple(card["input_size"]), card["clip_frames"]) == ((64, 64), 2)


def test_a_model_of_another_data_set_is_refused_by_name(road):
    classes = ShardSet(road.recipe.shards_of("val")).classes
    with pytest.raises(ValueError, match=r"trained on the classes of .*these shards have those of other"):
        open_system(road.recipe, "near_online", replace(classes, name="other"))


def test_a_model_converted_without_its_data_neither_scores_nor_predicts(road, tmp_path):
    recipe = road.copy(tmp_path / "road")
    path = recipe.segmenter_folder / "model.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"classes": ClassTable.numbered(len(card["classes"]["classes"])).to_json()}))
    for classes in (None, ShardSet(recipe.shards_of("val")).classes):
        with pytest.raises(ValueError, match=r"have no names, and stuff counts as things.*--set dataset\.root"):
            open_system(recipe, "near_online", classes)


def test_a_head_links_no_segments_and_clips_cannot_overlap_whole(road):
    system = open_system(road.recipe, "offline")
    with pytest.raises(ValueError, match=r"association hungarian only, not memory_buffer; set evaluation\.mode"):
        replace(system, config=replace(system.config, association=MemoryBufferConfig()))
    with pytest.raises(ValueError, match=r"overlap=1 needs longer clips than the 1 frames"):
        replace(system, head=None, config=replace(system.config, association=MemoryBufferConfig()), clip_frames=1)
    with pytest.raises(ValueError, match=r"makes panoptic videos by PanopticConfig only"):
        replace(system, config=replace(system.config, results=("tracks",)))


def test_small_frames_fill_the_network_where_that_is_asked_for_and_their_maps_come_back_at_their_size(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8))
    source = FolderSource(tmp_path)
    classes = ClassTable("two", tuple(
        ClassInfo(number, f"class {number}", True, (128, 128, 128)) for number in range(2)))
    segmenter = build_segmenter(tiny_video_kmax(num_classes=2)).eval()
    for enlarge, size in ((False, (24, 40)), (True, (48, 80))):
        system = System(segmenter=segmenter, head=None, classes=classes, clip_frames=1, size=(64, 80), made_by={},
                        config=EvaluationConfig(enlarge=enlarge))
        (clip, _), = system.clip_predictions(source)
        assert clip.real_pixels[0, 0, :size[0], :size[1]].sum() == clip.real_pixels.sum() == size[0] * size[1]
        assert system.predict(source).panoptic.frames[0].shape == (24, 40)


def test_a_head_in_the_place_of_a_segmenter_is_named(road):
    with pytest.raises(ValueError, match="holds a head, a segmenter is needed"):
        load_segmenter(road.recipe.head_folder)


def test_the_lineage_of_a_model_names_its_weights_and_the_code(road):
    card = read_card(road.recipe.head_folder)
    assert lineage(road.recipe.head_folder) == {"sha256": card["weights_sha256"], "code": card["code"]["commit"],
                                                "code_changed": card["code"]["changed"]}
