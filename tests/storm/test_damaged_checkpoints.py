"""A training whose newest checkpoints are damaged ends with the bytes of one that nothing disturbed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import make_shards, train_stage_one
from jobs.recipes.schema import Recipe
from jobs.verb import guarded
from pipeline.files import sha256_of
from tests.jobs.training.test_checkpoint_folders import DAMAGE, checkpoint_name, empty
from tests.runs import here, tiny_run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Recipe:
    """A finished stage one that saved at steps 2, 4 and 6."""
    recipe = here(tiny_run(tmp_path_factory.mktemp("undisturbed") / "run"))
    fit = replace(recipe.stage_one.fit, checkpoint_every=2, keep_checkpoints=3)
    recipe = replace(recipe, stage_one=replace(recipe.stage_one, fit=fit))
    make_shards.main(recipe)
    train_stage_one.main(recipe)
    return recipe


@pytest.fixture
def interrupted(undisturbed, tmp_path) -> Recipe:
    """A copy of the run without its model: its training resumes from the checkpoints."""
    recipe = replace(undisturbed, folder=str(tmp_path / "run"))
    shutil.copytree(undisturbed.run_folder, recipe.run_folder)
    shutil.rmtree(recipe.segmenter_folder)
    return recipe


def checkpoint(recipe: Recipe, step: int, place: str = "checkpoints") -> Path:
    return recipe.run_folder / "stage_one" / place / checkpoint_name(step)


def same_weights(one: Recipe, other: Recipe) -> bool:
    return sha256_of(one.segmenter_folder / "model.safetensors") == sha256_of(
        other.segmenter_folder / "model.safetensors")


@pytest.mark.parametrize(("place", "damage"), [
    ("checkpoints", "weights changed"), ("ray_train", "only the state, as a copy that was killed leaves it")])
def test_training_goes_on_from_the_newest_whole_checkpoint(undisturbed, interrupted, capsys, damage, place):
    if place == "ray_train":
        checkpoint(interrupted, 6).parent.rename(checkpoint(interrupted, 6, place).parent)
    DAMAGE[damage](checkpoint(interrupted, 6, place))
    empty(checkpoint(interrupted, 4, place))
    capsys.readouterr()
    train_stage_one.main(interrupted)
    said = capsys.readouterr().out
    assert f"passed over the checkpoint {checkpoint(interrupted, 6, place)}: " in said
    assert f"passed over the checkpoint {checkpoint(interrupted, 4, place)}: " in said
    assert "resumed at step 2" in said
    assert same_weights(interrupted, undisturbed)


def test_where_no_checkpoint_is_whole_the_verb_ends_in_one_line_and_nothing_is_removed(interrupted, capsys):
    for step in (2, 4, 6):
        empty(checkpoint(interrupted, step))
    assert guarded(train_stage_one.main, lambda: interrupted) == 4
    assert "error: none of the 3 checkpoints" in capsys.readouterr().err
    assert all(checkpoint(interrupted, step).is_dir() for step in (2, 4, 6))


@pytest.mark.ray
def test_the_same_on_a_cluster(undisturbed, interrupted, cluster, capsys):
    """What an earlier version left: a copy of Ray's that was killed, and Ray's own list of what it copied."""
    recipe = replace(interrupted, cluster=replace(interrupted.cluster, in_process=False, workers=1))
    place = checkpoint(recipe, 6, "ray_train").parent
    checkpoint(recipe, 6).parent.rename(place)
    (place / "checkpoint_manager_snapshot.json").write_text("{")
    DAMAGE["only the state, as a copy that was killed leaves it"](checkpoint(recipe, 6, "ray_train"))
    empty(checkpoint(recipe, 4, "ray_train"))
    train_stage_one.main(recipe)
    assert same_weights(recipe, undisturbed)
    assert all(checkpoint(recipe, step, "ray_train") in place.iterdir() for step in (2, 4, 6))
