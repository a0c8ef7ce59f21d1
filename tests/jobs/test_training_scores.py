"""Scores and pictures while stage one trains: the numbers of `evaluate`, the best weights, an unchanged training."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from jobs import evaluate, train_stage_one
from jobs.made_before import changed_since
from jobs.models import load_segmenter, read_card
from jobs.recipes.schema import Recipe, SegmenterValidationConfig
from jobs.training_scores import Scores
from tests.runs import here, scored
from tests.untrained_run import untrained_on_shards

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def untracked(monkeypatch):
    """Nothing here is about MLflow, whose store takes longer to be made than these trainings."""
    monkeypatch.setattr("jobs.verb.can_record", lambda *_: False)


EVERY_TWO = SegmenterValidationConfig(every=2, videos=4, overlays=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Recipe:
    """A run that has nothing but shards."""
    recipe = untrained_on_shards(tmp_path_factory.mktemp("shards") / "run")
    shutil.rmtree(recipe.run_folder / "stage_one")
    return recipe


def copied(shards: Recipe, folder, *, ema: float = 0.0, **changes) -> Recipe:
    shutil.copytree(shards.run_folder, folder)
    stage = replace(shards.stage_one, fit=replace(shards.stage_one.fit, ema=ema), **changes)
    return replace(shards, folder=str(folder), stage_one=stage)


def weights(recipe: Recipe, part: str = "model") -> str:
    return read_card(recipe.run_folder / "stage_one" / part)["weights_sha256"]


@pytest.mark.long
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_training_that_is_scored_and_stopped_ends_like_an_undisturbed_one(shards, tmp_path, monkeypatch, ema):
    scored_run = copied(shards, tmp_path / "scored", validation=EVERY_TWO, ema=ema)
    train_stage_one.main(scored_run)
    history = read_card(scored_run.run_folder / "stage_one" / "best")["scores_while_training"]
    assert [step for step, _ in history] == [2, 4, 6]

    stopped = copied(shards, tmp_path / "stopped", validation=EVERY_TWO, ema=ema)
    train_until_step_4(stopped, monkeypatch)
    train_stage_one.main(stopped)
    assert weights(stopped) == weights(scored_run)
    assert weights(stopped, "best") == weights(scored_run, "best")
    assert read_card(stopped.run_folder / "stage_one" / "best")["scores_while_training"] == history

    plain = copied(shards, tmp_path / "plain", ema=ema)
    train_stage_one.main(plain)
    assert weights(plain) == weights(scored_run)
    assert not (plain.run_folder / "stage_one" / "best").exists()
    assert changed_since(scored_run, "predict") == []
    pictures = [f"step-{step:07d}" for step in (2, 4, 6)]
    assert sorted(path.name for path in (stopped.run_folder / "stage_one" / "pictures").iterdir()) == pictures
    assert len(list((stopped.run_folder / "stage_one" / "pictures" / pictures[0]).glob("*.mp4"))) == 2
    assert evaluate.main(scored(scored_run, mode="near_online"))["vpq"] == pytest.approx(history[-1][1])


def train_until_step_4(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Scores.draw
    with monkeypatch.context() as patch:
        patch.setattr(Scores, "draw", lambda self, step: draw(self, step) if step < 4 else stop())
        with pytest.raises(KeyboardInterrupt):
            train_stage_one.main(recipe)


def stop() -> None:
    raise KeyboardInterrupt


@pytest.mark.ray
@pytest.mark.long
def test_a_scored_training_that_was_stopped_goes_on_on_ray_with_its_scores(shards, cluster, tmp_path, monkeypatch):
    undisturbed = copied(shards, tmp_path / "undisturbed", validation=EVERY_TWO)
    train_stage_one.main(undisturbed)
    stopped = copied(shards, tmp_path / "stopped", validation=EVERY_TWO)
    train_until_step_4(stopped, monkeypatch)
    train_stage_one.main(replace(stopped, cluster=replace(shards.cluster, in_process=False, workers=1)))
    assert weights(stopped) == weights(undisturbed)
    assert weights(stopped, "best") == weights(undisturbed, "best")
    histories = [read_card(run.run_folder / "stage_one" / "best")["scores_while_training"]
                 for run in (stopped, undisturbed)]
    assert histories[0] == histories[1]


@pytest.mark.ray
@pytest.mark.long
def test_two_workers_of_ray_are_scored_and_end_as_without_scores(shards, cluster, tmp_path):
    on_ray = replace(shards.cluster, in_process=False, workers=2)
    recipe = replace(copied(shards, tmp_path / "run", validation=EVERY_TWO), cluster=on_ray)
    train_stage_one.main(recipe)
    best = recipe.run_folder / "stage_one" / "best"
    assert [step for step, _ in read_card(best)["scores_while_training"]] == [2, 4, 6]
    load_segmenter(best)
    assert len(list((recipe.run_folder / "stage_one" / "pictures").rglob("*.mp4"))) == 6
    plain = replace(copied(shards, tmp_path / "plain"), cluster=on_ray)
    train_stage_one.main(plain)
    assert weights(plain) == weights(recipe)


def test_pictures_that_cannot_be_written_end_no_training(shards, tmp_path, capsys):
    recipe = copied(shards, tmp_path / "run", validation=EVERY_TWO)
    folder = recipe.run_folder / "stage_one"
    folder.mkdir()
    (folder / "pictures").write_text("a file where the folder belongs")
    train_stage_one.main(recipe)
    said = capsys.readouterr().out
    assert said.count("has no pictures: ") == 3
    load_segmenter(folder / "best")


def test_a_finished_training_goes_on_with_more_steps(shards, tmp_path, capsys):
    recipe = copied(shards, tmp_path / "run")
    train_stage_one.main(recipe)
    before = load_file(recipe.segmenter_folder / "model.safetensors")
    longer = replace(recipe, stage_one=replace(recipe.stage_one, fit=replace(recipe.stage_one.fit, steps=8)))
    train_stage_one.main(longer)
    said = capsys.readouterr().out
    assert "is trained on: stage.fit.steps: 6 != 8" in said
    assert "resumed at step 6" in said
    after = load_file(recipe.segmenter_folder / "model.safetensors")
    assert any(not before[name].equal(value) for name, value in after.items())
    assert train_stage_one.main(here(longer))["resumed"]


def test_what_cannot_be_scored_is_refused_before_anything_is_trained(shards, tmp_path):
    recipe = copied(shards, tmp_path / "run", validation=EVERY_TWO)
    with pytest.raises(FileNotFoundError, match="make_shards"):
        train_stage_one.main(scored(recipe, split="test"))
    with pytest.raises(ValueError, match="every and videos must be at least 1"):
        SegmenterValidationConfig(every=0)
