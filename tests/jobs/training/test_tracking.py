"""MLflow as the verbs use it: one parent per run, one child per verb, no step twice, nothing lost."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jobs.training import record as record_module
from jobs.training import tracker as tracker_module
from jobs.training.delivery import log_waiting
from jobs.training.record import Record, records, waiting
from jobs.training.tracker import Recorded, Tracker, open_record, unfinished
from jobs.training.tracking import Log, TrackingConfig, mlflow_module
from tests.storm.small_disk import disk_of

NOBODY = "http://127.0.0.1:9"      # a port nothing listens on


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """An SQLite tracker that exists already, since creating one takes seconds."""
    folder = tmp_path_factory.mktemp("tracker")
    with verb(TrackingConfig(), folder / "run", "first"):
        pass
    return f"sqlite:///{folder / 'tracking.db'}"


@pytest.fixture
def config(database) -> TrackingConfig:
    return TrackingConfig(uri=database)


@pytest.fixture
def away(monkeypatch) -> TrackingConfig:
    """A tracker that refuses every connection."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return TrackingConfig(uri=NOBODY)


class Cut(Exception):
    """The error that ends a verb."""


def verb(config: TrackingConfig, folder: Path, name: str = "train") -> Recorded:
    return Recorded(config, folder=folder, run_name="run", verb=name, tags={"recipe": "tiny"},
                    sync=lambda folder: f"python -m jobs.sync_tracking --set folder={folder}")


def run_of(tracker: Tracker):
    return MlflowClient(tracker.ids["uri"]).get_run(tracker.ids["run_id"])


def steps(tracker: Tracker, name: str = "loss") -> list[int]:
    return [metric.step for metric in MlflowClient(tracker.ids["uri"]).get_metric_history(tracker.ids["run_id"], name)]


def sync(config: TrackingConfig, folder: Path) -> list[str]:
    return log_waiting(folder, config.uri, {})


def the_run(config: TrackingConfig, folder: Path, name: str = "train"):
    """The one run that MLflow has for a verb of a run."""
    client = MlflowClient(config.uri)
    parent = json.loads((folder / "tracking.json").read_text())["parent"]
    [run] = client.search_runs([client.get_run(parent).info.experiment_id],
                               f"tags.mlflow.parentRunId = '{parent}' and tags.verb = '{name}'")
    return run


def test_what_is_logged_needs_no_temporary_folder(tmp_path, monkeypatch, away):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    with verb(away, tmp_path / "run") as tracker:
        tracker.json("recipe.json", {"a": 1})
    assert tracker.failures == []
    assert [json.loads(path.read_text()) for path in tmp_path.rglob("recipe.json")] == [{"a": 1}]


def test_by_default_the_database_and_artifacts_lie_beside_the_run_folders(tmp_path):
    with verb(TrackingConfig(), tmp_path / "runs" / "run") as tracker:
        tracker.json("recipe.json", {"a": 1})
    assert tracker.ids["uri"] == f"sqlite:///{tmp_path}/runs/tracking.db"
    assert [path.name for path in (tmp_path / "runs" / "artifacts").rglob("*.json")] == ["recipe.json"]


def test_the_verbs_of_a_run_are_children_of_one_parent(config, tmp_path):
    trackers = {}
    for folder, name in ((tmp_path / "one", "make_shards"), (tmp_path / "one", "train"), (tmp_path / "other", "train")):
        with verb(config, folder, name) as trackers[folder.name, name]:
            pass
    first, second, other = trackers.values()
    assert first.ids["parent_id"] == second.ids["parent_id"] != other.ids["parent_id"]
    for tracker, name in ((first, "make_shards"), (second, "train")):
        tags = run_of(tracker).data.tags
        assert tags["mlflow.parentRunId"] == tracker.ids["parent_id"]
        assert (tags["verb"], tags["run"], tags["recipe"], tags["attempt"]) == (name, "run", "tiny", "1")


def test_a_verb_that_was_cut_off_continues_its_run_and_a_finished_one_gets_a_new_one(config, tmp_path):
    open_record(config, folder=tmp_path, run_name="run", verb="train", tags={})       # killed: nothing follows
    with verb(config, tmp_path) as again:
        assert unfinished(tmp_path, "train", config.uri) == again.record
    assert run_of(again).data.tags["attempt"] == "2"
    assert run_of(again).info.status == "FINISHED"
    assert (unfinished(tmp_path, "train", config.uri), records(tmp_path)) == (None, [])
    with verb(config, tmp_path) as third:
        pass
    assert third.ids["run_id"] != again.ids["run_id"]


@pytest.mark.parametrize(("error", "status"), [(Cut, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_that_failed_or_was_stopped_is_marked_and_continued(config, tmp_path, error, status):
    with pytest.raises(error), verb(config, tmp_path) as tracker:
        raise error
    assert run_of(tracker).info.status == status
    with verb(config, tmp_path) as again:
        pass
    assert (again.ids["run_id"], run_of(again).info.status) == (tracker.ids["run_id"], "FINISHED")


def test_the_run_of_a_verb_that_an_earlier_version_left_unfinished_is_continued(config, tmp_path):
    with pytest.raises(Cut), verb(config, tmp_path / "new") as tracker:
        raise Cut
    old = tmp_path / "old"
    old.mkdir()
    ids = tracker.ids
    (old / "tracking.json").write_text(json.dumps({"uri": config.uri, "parent": ids["parent_id"],
                                                   "open": {"train": ids["run_id"], "other": "x"}}))
    with verb(config, old) as again:
        pass
    assert (again.ids["run_id"], again.ids["parent_id"]) == (ids["run_id"], ids["parent_id"])
    assert run_of(again).data.tags["attempt"] == "2"
    assert json.loads((old / "tracking.json").read_text())["open"] == {"other": "x"}


def test_a_run_that_somebody_deleted_is_replaced(config, tmp_path):
    with pytest.raises(Cut), verb(config, tmp_path) as tracker:
        raise Cut
    MlflowClient(config.uri).delete_run(tracker.ids["run_id"])
    with verb(config, tmp_path) as again:
        pass
    assert run_of(again).info.status == "FINISHED"
    assert again.ids["run_id"] != tracker.ids["run_id"]


def test_numbers_parameters_tags_and_files_arrive(config, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights").write_text("w")
    with verb(config, tmp_path) as tracker:
        tracker.parameters({"lr": 0.1, "long": "x" * 9000})
        tracker.parameters({"lr": 0.2, "new": 1})     # MLflow refuses to change a parameter, as a resumed run does
        for step in range(1, 1203):
            tracker.numbers(step, {"loss": 1 / step, "lr": 0.1})
        tracker.numbers(1203, {"loss": float("nan")})
        tracker.tags({"shards": "abc"})
        tracker.file(tmp_path / "folder", "checkpoint")
        tracker.json("recipe.json", {"b": 2, "a": Path("x")})
    run = run_of(tracker)
    assert tracker.failures == []
    assert run.data.params | {"long": ""} == {"lr": "0.1", "new": "1", "long": ""}
    assert sorted(steps(tracker)) == list(range(1, 1204))
    assert run.data.tags["shards"] == "abc"
    files = MlflowClient(config.uri).list_artifacts(tracker.ids["run_id"])
    assert sorted(file.path for file in files) == ["checkpoint", "recipe.json"]


def test_a_resumed_training_logs_no_step_twice_and_a_new_result_replaces_the_old_one(config, tmp_path):
    def train() -> None:
        with verb(config, tmp_path) as tracker:
            for step in (20, 40):
                tracker.numbers(step, {"loss": 1.0})
            tracker.numbers(0, {"videos": 1})
            raise Cut

    with pytest.raises(Cut):
        train()
    time.sleep(0.01)
    with verb(config, tmp_path) as tracker:
        for step in (40, 60):
            tracker.numbers(step, {"loss": 0.5})
        tracker.numbers(0, {"videos": 2})
    assert steps(tracker) == [20, 40, 60]
    assert run_of(tracker).data.metrics == {"loss": 0.5, "videos": 2.0}


def register(tracker: Tracker, folder: Path, shards: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_text(shards)
    tracker.file(folder, "checkpoint")
    tracker.register("segmenter", "checkpoint", {"shards": shards, "code": "123"})


def test_registered_models_are_versions_that_name_their_inputs(config, tmp_path):
    trackers = []
    for shards in ("abc", "def"):
        with verb(config, tmp_path) as tracker:
            register(tracker, tmp_path / "model", shards)
        trackers.append(tracker)
    first, second = (int(tracker.ids["version"]) for tracker in trackers)
    assert second == first + 1
    newest = MlflowClient(registry_uri=config.uri).get_model_version_by_alias("segmenter", "newest")
    assert (int(newest.version), newest.run_id) == (second, trackers[1].ids["run_id"])
    assert newest.tags == {"shards": "def", "code": "123"}
    assert Path(newest.source.removeprefix("file://"), "model.json").read_text() == "def"


def test_what_a_tracker_that_is_away_does_not_take_is_logged_later_and_once(config, away, tmp_path, capsys):
    began = time.monotonic()
    with verb(away, tmp_path) as tracker:
        tracker.parameters({"lr": 0.1})
        for step in (1, 2, 3):
            tracker.numbers(step, {"loss": 1 / step})
        register(tracker, tmp_path / "model", "abc")
        (tmp_path / "model" / "model.json").unlink()
        (tmp_path / "model" / "model.json").write_text("another model by now")
    assert time.monotonic() - began < 20
    assert tracker.ids["run_id"] is None
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"tracking: {waiting(tmp_path)} things are not logged in MLflow (API request to {NOBODY}" in last
    assert f"log them by python -m jobs.sync_tracking --set folder={tmp_path}" in last
    assert sync(config, tmp_path) == []
    assert (sync(config, tmp_path), waiting(tmp_path), records(tmp_path)) == ([], 0, [])
    run = the_run(config, tmp_path)
    assert (run.info.status, run.data.params, run.data.tags["attempt"]) == ("FINISHED", {"lr": "0.1"}, "1")
    history = MlflowClient(config.uri).get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    [version] = MlflowClient(registry_uri=config.uri).search_model_versions(f"run_id = '{run.info.run_id}'")
    assert Path(version.source.removeprefix("file://"), "model.json").read_text() == "abc"


def test_a_model_that_is_registered_late_does_not_become_the_newest(config, away, tmp_path):
    with verb(away, tmp_path / "late") as tracker:
        register(tracker, tmp_path / "model", "late")
    with verb(config, tmp_path / "new") as newer:
        register(newer, tmp_path / "model", "new")
    assert sync(config, tmp_path / "late") == []
    client = MlflowClient(registry_uri=config.uri)
    assert client.get_model_version_by_alias("segmenter", "newest").run_id == newer.ids["run_id"]
    late = [version.tags["shards"] for version in client.search_model_versions("name='segmenter'")]
    assert late.count("late") == 1


def test_the_next_verb_logs_what_the_one_before_could_not(config, away, tmp_path):
    with verb(away, tmp_path, "first") as tracker:
        tracker.numbers(0, {"videos": 3})
    with verb(config, tmp_path, "second") as second:
        pass
    run = the_run(config, tmp_path, "first")
    assert run.data.metrics == {"videos": 3.0}
    assert run.data.tags["mlflow.parentRunId"] == second.ids["parent_id"]
    assert waiting(tmp_path) == 0


@pytest.mark.parametrize("kind", ["numbers", "parameters", "tags", "files", "register", "status"])
def test_logging_that_is_cut_off_after_any_entry_logs_nothing_twice(config, away, tmp_path, monkeypatch, kind):
    with verb(away, tmp_path) as tracker:
        tracker.parameters({"lr": 0.1})
        for step in (1, 2):
            tracker.numbers(step, {"loss": 1 / step})
        tracker.tags({"a": "b"})
        register(tracker, tmp_path / "model", kind)
    with monkeypatch.context() as killed:
        remove = Record.remove
        killed.setattr(Record, "remove", lambda self, entry: killed_at(entry, kind) or remove(self, entry))
        with pytest.raises(KeyboardInterrupt):
            sync(config, tmp_path)
    assert sync(config, tmp_path) == []
    run = the_run(config, tmp_path)
    client = MlflowClient(config.uri, registry_uri=config.uri)
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [1, 2]
    assert len(client.search_model_versions(f"run_id = '{run.info.run_id}'")) == 1
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.1"})


def killed_at(entry: Path, kind: str) -> None:
    """Stand in for a kill between the tracker's answer and the removal of the entry."""
    if entry.stem.endswith(kind):
        raise KeyboardInterrupt


def test_a_request_that_the_tracker_refuses_holds_up_only_the_registration(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Log, "_add_files", lambda self, *_: (_ for _ in ()).throw(OSError("the bucket is closed")))
        with verb(config, tmp_path) as tracker:
            register(tracker, tmp_path / "model", "abc")
            tracker.numbers(0, {"videos": 1})
    assert waiting(tmp_path) == 2                       # the files, and the registration that needs them
    assert run_of(tracker).info.status == "FINISHED"
    assert run_of(tracker).data.metrics == {"videos": 1.0}
    assert sync(config, tmp_path) == []
    assert len(MlflowClient(config.uri).search_model_versions(f"run_id = '{tracker.ids['run_id']}'")) == 1


def test_what_waits_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(record_module, "MOST_NUMBER_ENTRIES", 3)
    tracker = Tracker(open_record(TrackingConfig(uri=NOBODY), folder=tmp_path, run_name="run", verb="train", tags={}))
    for step in range(5):
        tracker.numbers(step, {"loss": 1.0, "lr": 1.0})
        tracker.flush()
    kept = [json.loads(entry.read_text()) for entry in tracker.record.entries() if entry.stem.endswith("numbers")]
    assert [rows[0][3] for rows in kept] == [2, 3, 4]
    assert len(tracker.failures) == 2
    assert "2 numbers, the oldest" in tracker.failures[0]
    monkeypatch.setattr(record_module, "MOST_BYTES", 10)
    tracker.json("large.json", {"a": "x" * 100})
    tracker.json("refused.json", {"a": 1})
    assert "GiB of files wait to be logged" in tracker.failures[-1]
    assert sum(entry.stem.endswith("files") for entry in tracker.record.entries()) == 1


def test_a_disk_that_is_full_ends_no_verb(config, tmp_path, monkeypatch, capsys):
    with verb(config, tmp_path) as tracker:
        monkeypatch.setattr(record_module, "atomic_write", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
        tracker.numbers(1, {"loss": 1.0})
        tracker.tags({"a": 1})
        monkeypatch.undo()
    assert run_of(tracker).info.status == "FINISHED"
    assert "tracking: 1 things could not be kept for MLflow" in capsys.readouterr().out
    assert steps(tracker) == [1]                        # it waited for the next flush


def write(record: Record, first: int) -> None:
    tracker = Tracker(record)
    for step in range(first, first + 20):
        tracker.numbers(step, {f"loss_of_{first}": 1.0})
        tracker.flush()
    assert not tracker.failures, tracker.failures


def test_processes_that_write_at_once_lose_nothing(config, tmp_path):
    with verb(config, tmp_path) as tracker:
        processes = [multiprocessing.get_context("fork").Process(target=write, args=(tracker.record, first))
                     for first in (1, 101, 201)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    for first in (1, 101, 201):
        assert steps(tracker, f"loss_of_{first}") == list(range(first, first + 20))


def test_a_clock_that_is_set_back_mixes_nothing_up(config, tmp_path, monkeypatch):
    """The entries keep their order, the run ends after it began, and the scores that were written last count."""
    clock = iter(range(4 * 10**18, 0, -10**15))
    monkeypatch.setattr(record_module.time, "time_ns", lambda: next(clock))
    for score in (50.0, 60.0):
        with verb(config, tmp_path) as tracker:
            for step in (1, 2, 3):
                tracker.numbers(step, {"loss": 1.0})
                tracker.flush()
            tracker.parent_numbers({"vpq": score})
        run = run_of(tracker)
        assert run.info.status == "FINISHED"
        assert run.info.end_time >= run.info.start_time
        assert sorted(steps(tracker)) == [1, 2, 3]
    assert MlflowClient(config.uri).get_run(tracker.ids["parent_id"]).data.metrics["vpq"] == 60.0


def test_stored_ids_of_another_tracker_are_not_used(config, tmp_path):
    with pytest.raises(Cut), verb(config, tmp_path) as first:
        raise Cut
    known = json.loads((tmp_path / "tracking.json").read_text())
    (tmp_path / "tracking.json").write_text(json.dumps({**known, "uri": "sqlite:////elsewhere.db", "parent": "x"}))
    with verb(config, tmp_path) as tracker:
        pass
    assert tracker.ids["parent_id"] == first.ids["parent_id"]      # found again by its key
    assert json.loads((tmp_path / "tracking.json").read_text())["parent"] == first.ids["parent_id"]


def test_a_run_on_a_read_only_share_is_recorded_where_the_recipe_says(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tracker_module, "_is_writable", lambda folder: False)
    with verb(config, tmp_path / "share") as tracker:
        tracker.numbers(0, {"videos": 1})
    assert run_of(tracker).data.metrics == {"videos": 1.0}
    assert not tracker.record.folder.parents[1].exists()
    assert not (tmp_path / "share").exists()


def test_an_error_of_the_database_is_told_without_a_wall_of_lines(database, capfd):
    client = mlflow_module().MlflowClient(database)
    run = client.create_run("0").info.run_id
    with disk_of(1000), pytest.raises(MlflowException, match="disk I/O error"):
        client.set_tag(run, "name", "x" * 3000)
    assert "Traceback" not in capfd.readouterr().err
