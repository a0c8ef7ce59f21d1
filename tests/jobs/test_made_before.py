"""A recipe that was edited after its shards or its model were made: the verbs that read them name the fields."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import make_shards
from jobs.made_before import NOTE, changed_since
from jobs.recipes.schema import Recipe
from jobs.training.identity import claim_folder
from jobs.verb import guarded
from tests.own_data.test_no_objects import on_own_data
from tests.own_data.worlds import SOURCES


@pytest.fixture
def made(tmp_path) -> Recipe:
    """A run whose shards are made."""
    recipe = on_own_data("tiny", tmp_path / "run", SOURCES["vipseg"].write(tmp_path / "data"))
    recipe = replace(recipe, stage_two=None)
    assert guarded(make_shards.main, lambda: recipe) == 0
    return recipe


def edited(recipe: Recipe, part: str, **values: object) -> Recipe:
    return replace(recipe, **{part: replace(getattr(recipe, part), **values)})


def test_an_unchanged_recipe_has_nothing_to_tell(made):
    assert changed_since(made, "train_stage_one") == changed_since(made, "evaluate") == []


@pytest.mark.parametrize(("part", "field", "value"), [("dataset", "name", "kitti_step"), ("dataset", "layout", "raw"),
                                                      ("shards", "clip_frames", 3), ("shards", "jpeg_quality", 50)])
def test_other_data_than_the_shards_were_made_from_are_named(made, part, field, value):
    notes = changed_since(edited(made, part, **{field: value}), "train_stage_one")
    assert len(notes) == 2      # of train and val
    assert all(f"{part}.{field}: " in note and f" != {value!r}" in note for note in notes)
    assert "make_shards with another folder" in notes[0]
    assert changed_since(edited(made, part, **{field: value}), "predict") == []


def test_another_folder_of_data_is_named_where_it_exists(made, tmp_path):
    assert changed_since(edited(made, "dataset", root=str(tmp_path / "gone")), "evaluate") == []
    other = SOURCES["vipseg"].write(tmp_path / "other")
    assert "dataset.root: '../data' != '../other'" in changed_since(edited(made, "dataset", root=str(other)),
                                                                    "evaluate")[0]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{"),
                                    lambda path: path.write_text("[]"), lambda path: path.write_text('{"train": 5}'),
                                    lambda path: path.write_text('{"train": {"dataset": {}, "shards": {}}}')])
def test_a_run_without_a_whole_note_carries_on(made, damage):
    damage(made.run_folder / "shards" / NOTE)
    assert changed_since(edited(made, "shards", clip_frames=3), "train_stage_one") == []


def test_a_verb_prints_the_note_and_goes_on(made, capsys):
    def evaluate(recipe: Recipe) -> dict:
        return {}

    evaluate.__module__ = "jobs.evaluate"
    import jobs.evaluate  # noqa: F401    whose name tells which parts it reads

    assert guarded(evaluate, lambda: edited(made, "shards", clip_frames=3)) == 0
    printed = capsys.readouterr()
    assert "shards.clip_frames: " in printed.err
    assert json.loads(printed.out.splitlines()[-1])["verb"] == "jobs.evaluate"


def test_a_model_that_was_trained_with_other_settings_is_named(made):
    claim_folder(made.segmenter_folder.parent, {"stage": made.stage_one, "shards": "0"})
    Path(made.segmenter_folder).mkdir()
    assert changed_since(made, "predict") == []
    other = edited(made, "stage_one", fit=replace(made.stage_one.fit, steps=9))
    (note,) = changed_since(other, "predict")
    assert f"stage_one.fit.steps: {made.stage_one.fit.steps} != 9" in note
    assert changed_since(other, "train_stage_one") == []
