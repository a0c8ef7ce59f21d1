"""Training survives what happens to it: killed workers, stopped runs, changed settings, bad numbers, bad data."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from jobs import train_stage_one
from jobs.verb import guarded
from pipeline.datasets import open_dataset
from pipeline.datasets.synthetic import write_world
from pipeline.errors import Mismatch
from pipeline.shards import ShardSet, make_shards
from tests.runs import damage, tiny_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# samples a step, steps before the kill
BATCH = 4
KILLED_AT = 5
build_undisturbed = train_stage_one.build_stage


def build_deadly(recipe):
    """The real stage, but rank 1 is killed once, in the middle of the second epoch; every sample seen is noted."""
    stage = build_undisturbed(recipe)

    def batches(rank, world, consumed):
        for batch in stage.batches(rank, world, consumed):
            with (recipe.run_folder / "seen.jsonl").open("a") as notes:
                notes.write(json.dumps({"rank": rank, "process": os.getpid(), "samples": batch.samples}) + "\n")
            killed = recipe.run_folder / "killed"
            if rank == 1 and batch.samples[0] >= KILLED_AT * BATCH and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    return replace(stage, batches=batches)


def stage_one_of(finished_run, folder: Path, **changes):
    """The recipe of the finished run in a new folder with its shards, before stage one."""
    recipe = tiny_run(folder, **changes)
    recipe.run_folder.mkdir(parents=True)
    (recipe.run_folder / "shards").symlink_to(finished_run.recipe.run_folder / "shards")
    return recipe


def with_fit(recipe, **changes):
    stage = recipe.stage_one
    return replace(recipe, stage_one=replace(stage, fit=replace(stage.fit, **changes)))


@pytest.mark.long
@pytest.mark.parametrize("survives", [True, False])
def test_a_killed_run_goes_on_and_ends_with_the_weights_of_an_undisturbed_one(
        finished_run, cluster, tmp_path, monkeypatch, survives):
    """A worker dies in the middle of an epoch. Ray replaces it, or the run ends and the verb is run again."""
    recipe = with_fit(stage_one_of(finished_run, tmp_path / "run"), checkpoint_every=2, log_every=1)
    recipe = replace(recipe, cluster=replace(recipe.cluster, max_failures=int(survives)))
    monkeypatch.setattr(train_stage_one, "build_stage", build_deadly)
    if not survives:
        with pytest.raises(OSError, match="Ray lost a process of the verb"):
            train_stage_one.main(recipe)
        assert not (recipe.segmenter_folder / "model.json").exists()
    train_stage_one.main(recipe)

    ours, undisturbed = (load_file(r.segmenter_folder / "model.safetensors") for r in (recipe, finished_run.recipe))
    assert ours.keys() == undisturbed.keys()
    assert all(ours[name].equal(undisturbed[name]) for name in ours)

    known = json.loads((recipe.run_folder / "tracking.json").read_text())
    client = MlflowClient(known["uri"])
    (run,) = client.search_runs(["1"], "tags.verb = 'train_stage_one'")
    assert [m.step for m in client.get_metric_history(run.info.run_id, "loss")] == list(range(1, 7))
    assert run.data.tags["attempt"] == ("1" if survives else "2")
    assert run.info.status == "FINISHED"

    resumed = int(run.data.tags["resumed_from_step"])
    assert resumed in (2, 4)        # the last checkpoint, or the one before where the kill was faster than Ray's notice
    notes = [json.loads(line) for line in (recipe.run_folder / "seen.jsonl").read_text().splitlines()]
    processes = list(dict.fromkeys((note["rank"], note["process"]) for note in notes))
    assert sorted(rank for rank, _ in processes) == [0, 0, 1, 1]
    first, second = ([sample for note in notes if (note["rank"], note["process"]) in life for sample in note["samples"]]
                     for life in (processes[:2], processes[2:]))
    assert sorted(sample for sample in first if sample < resumed * BATCH) == list(range(resumed * BATCH))
    assert sorted(second) == list(range(resumed * BATCH, recipe.stage_one.fit.steps * BATCH))


def test_other_settings_do_not_continue_a_run_and_the_fields_are_named(finished_run, cluster, tmp_path):
    recipe = stage_one_of(finished_run, tmp_path / "run")
    (recipe.run_folder / "stage_one").mkdir()
    shutil.copy(finished_run.recipe.run_folder / "stage_one" / "identity.json", recipe.run_folder / "stage_one")
    stage = recipe.stage_one
    changed = replace(recipe, stage_one=replace(stage, optimizer=replace(stage.optimizer, lr=1e-4)))
    with pytest.raises(Mismatch, match=r"stage\.optimizer\.lr: 0\.003 != 0\.0001.*--set folder="):
        train_stage_one.main(changed)


@pytest.mark.long
def test_a_loss_that_is_not_finite_stops_at_once_naming_term_step_and_videos(finished_run, cluster, tmp_path, capsys):
    recipe = stage_one_of(finished_run, tmp_path / "run")
    stage = recipe.stage_one
    hot = replace(recipe, stage_one=replace(stage, optimizer=replace(stage.optimizer, lr=1e30)))
    assert guarded(train_stage_one.main, lambda: hot) == 2
    said = capsys.readouterr().err
    assert "error: the loss is not finite at step 1: rank 0: " in said
    assert "= nan in videos train_0" in said
    assert "Lower stage_one.optimizer.lr" in said
    run = MlflowClient(json.loads((hot.run_folder / "tracking.json").read_text())["uri"]).search_runs(["1"])
    assert {"FAILED"} == {r.info.status for r in run}


def test_a_damaged_shard_ends_training_with_the_video_and_the_data_exit_code(finished_run, cluster, tmp_path, capsys):
    recipe = finished_run.copy(tmp_path / "run")
    recipe = replace(recipe, cluster=replace(recipe.cluster, max_failures=0))
    for name in ("model", "ray_train"):
        (recipe.run_folder / "stage_one" / name).rename(recipe.run_folder / name)
    shards = ShardSet(recipe.shards_of("train"))
    for video in shards.videos:
        damage(shards, video)
    assert guarded(train_stage_one.main, lambda: recipe) == 3
    said = capsys.readouterr().err
    assert "error: video 'train_0" in said
    assert "leave the video out" in said


@pytest.mark.long
def test_a_multiplier_that_matches_nothing_is_a_wrong_setting_and_not_a_dead_worker(
        finished_run, cluster, tmp_path, capsys):
    recipe = stage_one_of(finished_run, tmp_path / "run")
    stage = recipe.stage_one
    misspelt = replace(stage.optimizer, multipliers=(("bckbone", 0.1),))
    wrong = replace(recipe, stage_one=replace(stage, optimizer=misspelt))
    assert guarded(train_stage_one.main, lambda: wrong) == 2
    assert "bckbone" in capsys.readouterr().err


def test_a_recipe_with_other_classes_than_the_shards_says_which_fields_to_set(finished_run, tmp_path):
    recipe = stage_one_of(finished_run, tmp_path / "run")
    one = recipe.stage_one
    two = recipe.stage_two
    other = replace(recipe, stage_one=replace(one, segmenter=replace(one.segmenter, num_classes=7)),
                    stage_two=replace(two, head=replace(two.head, num_classes=7)))
    with pytest.raises(ValueError, match=r"has 6 classes.*stage_one\.segmenter\.num_classes and stage_two\.head"):
        train_stage_one.main(other)


def test_a_worker_that_streams_needs_no_tar_on_its_machine(tmp_path):
    recipe = tiny_run(tmp_path / "run")
    store = tmp_path / "store"
    write_world(recipe.data_root, recipe.world)
    dataset = open_dataset(replace(recipe.dataset, root=str(recipe.data_root), split="train"))
    make_shards(dataset, recipe.shards_of("train"), recipe.shards, split="train")
    store.mkdir()
    for tar in recipe.shards_of("train").glob("*.tar"):
        tar.rename(store / tar.name)
    with pytest.raises(FileNotFoundError, match="in the manifest but not on disk"):
        build_undisturbed(recipe)
    one = recipe.stage_one
    streaming = replace(one.input, streaming=True, stream_from=f"pipe:cat '{store}/{{shard}}'")
    batches = build_undisturbed(replace(recipe, stage_one=replace(one, input=streaming))).batches(0, 1, 0)
    assert len({video for _ in range(3) for video in next(batches).videos}) == 12      # an epoch: every video once


def test_a_run_that_takes_its_segmenter_from_another_never_trains_it(finished_run, tmp_path):
    recipe = replace(finished_run.recipe, folder=str(tmp_path / "second"), stage_one_from=finished_run.recipe.folder)
    said = train_stage_one.main(recipe)
    assert said == {"model": str(finished_run.recipe.segmenter_folder), "resumed": True}
    with pytest.raises(ValueError, match=r"none that is trained as this recipe says.*leave stage_one_from empty"):
        train_stage_one.main(with_fit(recipe, steps=7))
    assert not recipe.run_folder.exists()
