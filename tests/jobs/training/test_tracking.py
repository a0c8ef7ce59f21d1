"""MLflow as the verbs use it: one parent per run, one child per verb, no step twice, no harm from a dead tracker."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.training import tracking
from jobs.training.tracking import RunHandle, Tracker, TrackingConfig, close_run, open_run

NOBODY = "http://127.0.0.1:9"      # a port nothing listens on


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """An SQLite tracker that exists already, since creating one takes seconds."""
    folder = tmp_path_factory.mktemp("tracker")
    open_run(TrackingConfig(), folder=folder / "run", run_name="run", verb="first", tags={})
    return f"sqlite:///{folder / 'tracking.db'}"


@pytest.fixture
def config(database) -> TrackingConfig:
    return TrackingConfig(uri=database)


def opened(config: TrackingConfig, folder: Path, verb: str = "train") -> RunHandle:
    return open_run(config, folder=folder, run_name="run", verb=verb, tags={"recipe": "tiny"})


def run_of(handle: RunHandle):
    return MlflowClient(handle.uri).get_run(handle.run_id)


def steps(handle: RunHandle, name: str = "loss") -> list[int]:
    return [metric.step for metric in MlflowClient(handle.uri).get_metric_history(handle.run_id, name)]


def test_by_default_the_database_and_artifacts_lie_beside_the_run_folders(tmp_path):
    handle = open_run(TrackingConfig(), folder=tmp_path / "runs" / "run", run_name="run", verb="train", tags={})
    assert handle.uri == f"sqlite:///{tmp_path}/runs/tracking.db"
    Tracker(handle).json("recipe.json", {"a": 1})
    assert [path.name for path in (tmp_path / "runs" / "artifacts").rglob("*.json")] == ["recipe.json"]


def test_the_verbs_of_a_run_are_children_of_one_parent(config, tmp_path):
    first = opened(config, tmp_path, "make_shards")
    second = opened(config, tmp_path, "train")
    other = opened(config, tmp_path / "other", "train")
    assert first.parent_id == second.parent_id != other.parent_id
    for handle, verb in ((first, "make_shards"), (second, "train")):
        tags = run_of(handle).data.tags
        assert tags["mlflow.parentRunId"] == handle.parent_id
        assert (tags["verb"], tags["run"], tags["recipe"], tags["attempt"]) == (verb, "run", "tiny", "1")


def test_a_verb_that_was_cut_off_continues_its_run_and_a_finished_one_gets_a_new_one(config, tmp_path):
    first = opened(config, tmp_path)
    again = opened(config, tmp_path)
    assert again.run_id == first.run_id
    assert run_of(again).data.tags["attempt"] == "2"
    Tracker(again).finish()
    close_run(tmp_path, "train")
    assert run_of(again).info.status == "FINISHED"
    assert opened(config, tmp_path).run_id != first.run_id


def test_a_failed_run_is_marked_as_failed_and_continued(config, tmp_path):
    handle = opened(config, tmp_path)
    Tracker(handle).finish(failed=True)
    assert run_of(handle).info.status == "FAILED"
    again = opened(config, tmp_path)
    assert (again.run_id, run_of(again).info.status) == (handle.run_id, "RUNNING")


def test_a_run_that_somebody_deleted_is_replaced(config, tmp_path):
    handle = opened(config, tmp_path)
    MlflowClient(handle.uri).delete_run(handle.run_id)
    assert opened(config, tmp_path).run_id != handle.run_id


def test_numbers_parameters_tags_and_files_arrive(config, tmp_path):
    handle = opened(config, tmp_path)
    tracker = Tracker(handle)
    tracker.parameters({"lr": 0.1, "long": "x" * 9000})
    tracker.parameters({"lr": 0.2, "new": 1})     # MLflow refuses to change a parameter, as a resumed run does
    for step in range(1, 1203):
        tracker.numbers(step, {"loss": 1 / step, "lr": 0.1})
    tracker.tags({"shards": "abc"})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights").write_text("w")
    tracker.file(tmp_path / "folder", "checkpoint")
    tracker.json("recipe.json", {"b": 2, "a": Path("x")})
    tracker.finish()
    run = run_of(handle)
    assert tracker.failures == []
    assert run.data.params | {"long": ""} == {"lr": "0.1", "new": "1", "long": ""}
    assert sorted(steps(handle)) == list(range(1, 1203))
    assert run.data.tags["shards"] == "abc"
    files = MlflowClient(handle.uri).list_artifacts(handle.run_id)
    assert sorted(file.path for file in files) == ["checkpoint", "recipe.json"]


def test_a_resumed_run_can_ask_for_the_last_recorded_step(config, tmp_path):
    tracker = Tracker(opened(config, tmp_path))
    assert tracker.last_step() == 0
    tracker.numbers(40, {"loss": 1.0})
    tracker.numbers(20, {"loss": 1.0})
    tracker.flush()
    assert tracker.last_step() == 40


def test_registered_models_are_versions_that_name_their_inputs(config, tmp_path):
    client = MlflowClient(config.uri, registry_uri=config.uri)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    versions = []
    for shards in ("abc", "def"):
        tracker = Tracker(opened(config, tmp_path))
        tracker.file(tmp_path / "model", "checkpoint")
        versions.append(tracker.register("segmenter", "checkpoint", {"shards": shards, "code": "123"}))
        tracker.finish()
        close_run(tmp_path, "train")
    assert versions == ["1", "2"]
    newest = client.get_model_version_by_alias("segmenter", "newest")
    assert (str(newest.version), newest.run_id) == ("2", tracker.handle.run_id)
    assert newest.tags == {"shards": "def", "code": "123"}
    assert Path(newest.source.removeprefix("file://"), "model.json").is_file()


def test_a_tracker_that_cannot_be_reached_at_the_start_is_named(tmp_path):
    with pytest.raises(ConnectionError, match=rf"{NOBODY} cannot be used.*tracking\.uri"):
        opened(TrackingConfig(uri=NOBODY), tmp_path)


def test_a_tracker_that_dies_costs_training_one_attempt_and_no_error(capsys):
    tracker = Tracker(RunHandle(uri=NOBODY, run_id="r", parent_id="p", experiment_id="1"))
    tracker.flushed = -tracking.FLUSH_SECONDS       # the next number is written at once
    tracker.numbers(1, {"loss": 1.0})
    assert len(tracker.failures) == 1
    started = time.monotonic()
    for step in range(2, 200):
        tracker.numbers(step, {"loss": 1.0})
        tracker.flush()
    assert time.monotonic() - started < 1.0
    assert (len(tracker.failures), len(tracker.buffer)) == (1, 199)
    tracker.tags({"a": 1})
    assert tracker.last_step() == 0
    tracker.finish()
    assert f"calls to {NOBODY} failed" in capsys.readouterr().out


def test_numbers_that_had_to_wait_arrive_when_the_tracker_is_back(config, tmp_path, monkeypatch):
    handle = opened(config, tmp_path)
    tracker = Tracker(handle)
    with monkeypatch.context() as away:
        away.setattr(tracker, "_log", lambda **batch: False)
        tracker.numbers(1, {"loss": 1.0})
        tracker.flush()
    tracker.numbers(2, {"loss": 0.5})
    tracker.flush()
    assert steps(handle) == []
    tracker.flush(last=True)
    assert steps(handle) == [1, 2]


def record(handle: RunHandle, first: int) -> None:
    tracker = Tracker(handle)
    for step in range(first, first + 20):
        tracker.numbers(step, {f"loss_of_{first}": 1.0})
        tracker.flush()
    assert not tracker.failures, tracker.failures


def test_processes_that_write_at_once_lose_nothing(config, tmp_path):
    """The driver creates the database; workers only write to it."""
    handle = opened(config, tmp_path)
    processes = [multiprocessing.get_context("fork").Process(target=record, args=(handle, first))
                 for first in (0, 100, 200)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    for first in (0, 100, 200):
        assert steps(handle, f"loss_of_{first}") == list(range(first, first + 20))


def test_stored_ids_of_another_tracker_are_not_used(config, tmp_path):
    opened(config, tmp_path)
    known = json.loads((tmp_path / "tracking.json").read_text())
    (tmp_path / "tracking.json").write_text(json.dumps({**known, "uri": "sqlite:////elsewhere.db", "parent": "x"}))
    assert opened(config, tmp_path).parent_id not in ("x", known["parent"])
