"""The store beside the run folders: made whole by one of several processes, and moved with its artifacts."""

from __future__ import annotations

import re
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.training.own_store import DATABASE, can_hold_store, prepare_store
from jobs.training.tracker import Recorded, can_record
from jobs.training.tracking import TrackingConfig, chosen_uri


def recorded(folder: Path, verb: str = "train", *, uri: str = "", register: bool = False) -> dict[str, str]:
    """Record a verb; returns the ids of its run."""
    with Recorded(TrackingConfig(uri=uri), folder=folder, run_name="run", verb=verb, tags={},
                  sync=lambda folder: "sync_tracking") as tracker:
        tracker.json(f"{verb}.json", {"a": 1})
        if register:
            tracker.register("segmenter", "checkpoint", {})
    return tracker.ids


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "artifacts").rglob("*.json"))


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """The folder of runs, with one recorded and registered run. Not to be changed."""
    runs = tmp_path_factory.mktemp("before") / "runs"
    recorded(runs / "run", register=True)
    return runs


@pytest.mark.parametrize("keep", [True, False], ids=["copied", "moved"])
def test_artifacts_follow_their_folder_to_another_place(original, tmp_path, keep):
    old = tmp_path / "old"
    shutil.copytree(original, old)
    first = recorded(old / "run")
    new = tmp_path / "elsewhere" / "new name"
    new.parent.mkdir()
    (shutil.copytree if keep else shutil.move)(old, new)
    ids = recorded(new / "run", "evaluate")
    assert ids["parent_id"] == first["parent_id"]                      # the same run, continued
    assert files(new) == ["evaluate.json", "train.json", "train.json"]
    assert old.exists() == keep
    assert not keep or files(old) == ["train.json", "train.json"]
    client = MlflowClient(ids["uri"])
    assert client.get_run(first["run_id"]).info.artifact_uri.startswith((new / "artifacts").as_uri())
    assert [item.path for item in client.list_artifacts(first["run_id"])] == ["train.json"]
    [version] = client.search_model_versions("name='segmenter'")
    assert version.source.startswith((new / "artifacts").as_uri())


def test_another_location_that_a_user_gave_an_experiment_is_left_alone(original, tmp_path):
    shutil.copytree(original, tmp_path / "runs")
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / DATABASE}")
    client.create_experiment("mine", artifact_location="file:///data/my_files")
    client.create_experiment("bucket", artifact_location="s3://bucket/artifacts")
    recorded(tmp_path / "runs" / "run")
    assert client.get_experiment_by_name("mine").artifact_location == "file:///data/my_files"
    assert client.get_experiment_by_name("bucket").artifact_location == "s3://bucket/artifacts"


def test_a_database_appears_only_when_it_is_whole_and_is_made_once(tmp_path):
    made = []

    def create(uri: str) -> None:
        made.append(uri)
        assert not (tmp_path / DATABASE).exists()
        time.sleep(0.2)
        with sqlite3.connect(uri.removeprefix("sqlite:///")) as connection:
            connection.execute("CREATE TABLE experiments (artifact_location TEXT)")

    callers = [threading.Thread(target=prepare_store, args=(tmp_path, create)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == [DATABASE]


def test_what_a_killed_process_left_of_a_database_is_no_obstacle(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        prepare_store(tmp_path, lambda uri: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert not (tmp_path / DATABASE).exists()
    recorded(tmp_path / "run")
    assert files(tmp_path) == ["train.json"]


def test_an_experiment_that_was_deleted_is_named_with_the_command_that_restores_it(original, tmp_path, capsys):
    shutil.copytree(original, tmp_path / "runs")
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / DATABASE}")
    client.delete_experiment(client.get_experiment_by_name("maxtron-on-ray").experiment_id)
    assert recorded(tmp_path / "runs" / "run")["run_id"] is None
    assert re.search(r"'maxtron-on-ray' .* was deleted; restore it \(mlflow experiments restore --experiment-id 1\), "
                     r"or set tracking\.project .*sync_tracking", capsys.readouterr().out)


def test_runs_that_were_deleted_on_the_page_stay_so_and_the_next_verb_has_a_new_parent_run(original, tmp_path):
    shutil.copytree(original, tmp_path / "runs")
    uri = f"sqlite:///{tmp_path / 'runs' / DATABASE}"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("maxtron-on-ray").experiment_id
    before = [run.info.run_id for run in client.search_runs([experiment])]
    for run in before:
        client.delete_run(run)
    ids = recorded(tmp_path / "runs" / "run", "evaluate")
    left = {run.info.run_id: run.data.tags for run in client.search_runs([experiment])}
    assert set(left) == {ids["run_id"], ids["parent_id"]}
    assert not set(left) & set(before)
    assert left[ids["run_id"]]["mlflow.parentRunId"] == ids["parent_id"]
    assert recorded(tmp_path / "runs" / "run", "predict")["parent_id"] == ids["parent_id"]      # and keeps it
    assert files(tmp_path / "runs") == ["evaluate.json", "predict.json", "train.json"]


def test_a_parent_run_that_alone_was_deleted_is_made_anew(original, tmp_path):
    shutil.copytree(original, tmp_path / "runs")
    uri = f"sqlite:///{tmp_path / 'runs' / DATABASE}"
    first = recorded(tmp_path / "runs" / "run", "evaluate")
    MlflowClient(uri).delete_run(first["parent_id"])
    ids = recorded(tmp_path / "runs" / "run", "predict")
    assert ids["parent_id"] != first["parent_id"]
    assert MlflowClient(uri).get_run(ids["parent_id"]).info.lifecycle_stage == "active"


def test_the_tracker_of_the_environment_is_used_and_named_and_the_recipes_comes_first(original, tmp_path, monkeypatch,
                                                                                      capsys):
    shutil.copytree(original, tmp_path / "theirs")
    uri = f"sqlite:///{tmp_path / 'theirs' / DATABASE}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert recorded(tmp_path / "runs" / "run")["uri"] == uri
    assert f"recording in MLFLOW_TRACKING_URI={uri}" in capsys.readouterr().out
    shutil.copytree(original, tmp_path / "chosen")
    chosen = f"sqlite:///{tmp_path / 'chosen' / DATABASE}"
    assert recorded(tmp_path / "runs" / "run", uri=chosen)["uri"] == chosen


def test_a_read_only_place_holds_no_store_unless_a_tracker_is_named(tmp_path, monkeypatch):
    assert can_hold_store(tmp_path / "not" / "there")
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).startswith(str(tmp_path)))
    assert not can_hold_store(tmp_path / "not" / "there")
    assert not can_record(TrackingConfig(), tmp_path / "runs" / "run")
    assert can_record(TrackingConfig(uri="http://tracker:5000"), tmp_path / "runs" / "run")


def test_a_blank_variable_means_the_store_beside_the_runs(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", " ")
    assert chosen_uri(TrackingConfig()) == ""
