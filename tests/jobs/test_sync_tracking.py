"""`sync_tracking` logs what waits in one run or in all runs of a folder, and a killed training registers its model."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs import sync_tracking
from jobs.recipes.schema import Recipe
from jobs.reproduce import ReproduceFlags, table_recipe
from jobs.training.record import waiting
from jobs.training.tracker import Tracker, open_record
from jobs.training.tracking import TrackingConfig
from jobs.verb import chosen_recipe, finish_recording, guarded, recorded, sync_command
from tests.runs import tiny_run

NOBODY = "http://127.0.0.1:9"      # a port nothing listens on


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tracker")
    with recorded(tiny_run(folder / "run"), "first"):
        pass
    return f"sqlite:///{folder / 'tracking.db'}"


def tracked(folder: Path, uri: str) -> Recipe:
    return replace(tiny_run(folder), tracking=TrackingConfig(uri=uri))


@pytest.fixture
def left(tmp_path, monkeypatch) -> Path:
    """A folder of two runs whose tracker was away."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("one", "two"):
        with recorded(tracked(tmp_path / name, NOBODY), "evaluate") as tracker:
            tracker.numbers(0, {"vpq": 0.5})
    return tmp_path


def test_all_runs_of_a_folder_are_logged_once(left, database, capsys):
    assert guarded(sync_tracking.main, lambda: tracked(left, NOBODY)) == 2
    assert "things are still not logged: API request to http://127.0.0.1:9" in capsys.readouterr().err
    logged = sync_tracking.main(tracked(left, database))
    assert logged["logged"] > 10
    assert logged["left"] == 0
    assert sync_tracking.main(tracked(left, database)) == {"logged": 0, "left": 0}
    client = MlflowClient(database)
    runs = client.search_runs([client.get_experiment_by_name("maxtron-on-ray").experiment_id],
                              "tags.verb = 'evaluate'")
    assert [run.data.metrics for run in runs] == [{"vpq": 0.5}, {"vpq": 0.5}]


def test_the_command_that_is_printed_names_the_run_and_its_tracker(left):
    command = sync_command(tracked(left / "one", NOBODY), left / "one")
    assert command.startswith("python -m jobs.sync_tracking --recipe tiny --set ")
    assert f"folder={left / 'one'}" in command
    assert f"tracking.uri={NOBODY}" in command


def test_a_training_that_was_killed_before_it_registered_its_model_does_so(database, tmp_path):
    recipe = tracked(tmp_path / "run", database)
    open_record(recipe.tracking, folder=recipe.run_folder, run_name="tiny", verb="train_stage_one", tags={})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    for _ in range(2):
        finish_recording(recipe, "train_stage_one", partial(register, tmp_path / "model"))
    client = MlflowClient(database)
    assert len(client.search_model_versions("name='killed'")) == 1
    assert waiting(recipe.run_folder) == 0


def register(folder: Path, tracker: Tracker) -> None:
    tracker.file(folder, "checkpoint")
    tracker.register("killed", "checkpoint", {})


def test_a_finished_training_that_is_run_again_logs_what_waits(left, database):
    recipe = tracked(left / "one", database)
    assert waiting(recipe.run_folder) > 0
    finish_recording(recipe, "train_stage_one", lambda _: pytest.fail("it was registered before"))
    assert waiting(recipe.run_folder) == 0


def test_what_waits_of_a_table_is_logged_by_a_recipe_that_there_is(tmp_path):
    table = table_recipe(ReproduceFlags(table="maxtron.6", folder=str(tmp_path)))
    command = shlex.split(sync_command(table, table.run_folder))
    assert command[:5] == ["python", "-m", "jobs.sync_tracking", "--recipe", "tiny"]
    assert chosen_recipe("tiny", command[6::2]).run_folder == table.run_folder


def test_a_password_of_the_tracker_is_in_no_record_that_others_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with recorded(tracked(tmp_path / "run", "http://me:s3cret@127.0.0.1:9"), "evaluate"):
        pass
    kept = [path for path in (tmp_path / "run" / "tracking").rglob("*") if path.is_file()]
    assert json.loads(next(path for path in kept if path.name == "run.json").read_text())["uri"] == "http://***@127.0.0.1:9"
    assert "http://***@127.0.0.1:9" in next(path.read_text() for path in kept if path.name == "recipe.json")
    assert not [path for path in kept if b"s3cret" in path.read_bytes()]
