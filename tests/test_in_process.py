"""`cluster.in_process`: a run without Ray has the results of a run with it, and survives the same accidents."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from safetensors.torch import load_file

from jobs import cache_queries, evaluate, make_shards, train_stage_one
from jobs.cache_queries import cache_folder
from jobs.training.loop import NotFinite
from pipeline.files import sha256_of
from tests.runs import here, scored

pytestmark = [pytest.mark.ray, pytest.mark.slow]

build_undisturbed = train_stage_one.build_stage


@pytest.fixture
def alone(finished_run, tmp_path, monkeypatch):
    """A copy of the finished run whose recipe needs no cluster; starting one fails the test."""
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    return here(finished_run.copy(tmp_path / "run"))


def contents(folder: Path, suffix: str) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob(f"*{suffix}"))}


def remade(recipe, verb, folder: Path, suffix: str) -> bool:
    """Whether the verb makes files of the same bytes again."""
    before = contents(folder, suffix)
    shutil.rmtree(folder)
    verb.main(recipe)
    assert before
    return contents(folder, suffix) == before


def test_shards_cache_predictions_and_scores_are_those_of_the_cluster(finished_run, alone):
    assert remade(alone, cache_queries, cache_folder(alone), ".parquet")
    assert remade(alone, make_shards, alone.run_folder / "shards", ".tar")
    for mode in ("near_online", "offline"):
        before = contents(alone.run_folder / "scores" / mode, ".png")
        assert before
        shutil.rmtree(alone.run_folder / "scores" / mode)
        said = evaluate.main(scored(alone, mode=mode))
        assert contents(alone.run_folder / "scores" / mode, ".png") == before
        assert (said["vpq"], said["frames"]) == (finished_run.said[mode]["vpq"], finished_run.said[mode]["frames"])


def test_training_goes_on_where_the_cluster_stopped(finished_run, alone, capsys):
    shutil.rmtree(alone.segmenter_folder)
    train_stage_one.main(alone)
    assert "resumed at step 6" in capsys.readouterr().out
    ours, theirs = (load_file(recipe.segmenter_folder / "model.safetensors") for recipe in (alone, finished_run.recipe))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.long
def test_a_cluster_goes_on_where_the_process_stopped(finished_run, cluster, tmp_path, capsys):
    recipe = untrained(finished_run.recipe, tmp_path / "run")
    recipe = replace(recipe, cluster=replace(recipe.cluster, workers=1))
    train_stage_one.main(here(recipe))
    weights = recipe.segmenter_folder / "model.safetensors"
    before = sha256_of(weights)
    shutil.rmtree(recipe.segmenter_folder)
    train_stage_one.main(recipe)
    assert sha256_of(weights) == before
    assert not list((recipe.run_folder / "stage_one" / "ray_train").glob("step-*"))


def untrained(recipe, folder: Path):
    """The recipe in another folder with the same shards, before stage one; checkpoints every second step."""
    one = recipe.stage_one
    other = replace(recipe, folder=str(folder), stage_one=replace(one, fit=replace(one.fit, checkpoint_every=2)))
    other.run_folder.mkdir()
    (other.run_folder / "shards").symlink_to(recipe.run_folder / "shards")
    return other


def test_stopped_and_run_again_equals_undisturbed(alone, tmp_path, monkeypatch):
    undisturbed, stopped = (untrained(alone, tmp_path / name) for name in ("undisturbed", "stopped"))
    train_stage_one.main(undisturbed)

    def build_impatient(recipe):
        """Somebody presses Ctrl-C while the fifth batch is read."""
        stage = build_undisturbed(recipe)

        def batches(*where):
            for number, batch in enumerate(stage.batches(*where)):
                if number == 4:
                    raise KeyboardInterrupt
                yield batch

        return replace(stage, batches=batches)

    with monkeypatch.context() as patch:
        patch.setattr(train_stage_one, "build_stage", build_impatient)
        with pytest.raises(KeyboardInterrupt):
            train_stage_one.main(stopped)
    assert not stopped.segmenter_folder.exists()
    train_stage_one.main(stopped)
    assert sorted(path.name for path in (stopped.run_folder / "stage_one" / "checkpoints").iterdir()) == [
        "step-0000004", "step-0000006"]
    ours, theirs = (load_file(recipe.segmenter_folder / "model.safetensors") for recipe in (stopped, undisturbed))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.mark.long
def test_a_loss_that_is_not_finite_is_raised_where_it_arose_and_a_lower_rate_may_follow(alone, tmp_path):
    recipe = untrained(alone, tmp_path / "hot")
    stage = recipe.stage_one
    hot = replace(recipe, stage_one=replace(stage, optimizer=replace(stage.optimizer, lr=1e30)))
    with pytest.raises(NotFinite, match=r"at step 1: rank 0: .* = nan in videos train_0") as raised:
        train_stage_one.main(hot)
    lower, last = raised.value.__notes__
    assert lower.startswith("Lower stage_one.optimizer.lr,")
    assert last == "No checkpoint was saved before."
    train_stage_one.main(recipe)
    assert (recipe.segmenter_folder / "model.json").is_file()
