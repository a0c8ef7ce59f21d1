"""A tracker that dies, hangs, fails, is slow or locked ends no verb and holds none for long; and nothing is lost."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.training import delivery, tracker
from jobs.training.delivery import log_waiting
from jobs.training.record import logging_alone, waiting
from jobs.training.tracker import Recorded, Tracker
from jobs.training.tracking import TrackingConfig
from tests.storm.mlflow_server import Proxy, Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(Server(tmp_path_factory.mktemp("mlflow"))) as server:
        yield server


@pytest.fixture
def proxy(server):
    proxy = Proxy(server)
    yield proxy
    proxy.close()


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Times that suit a test."""
    monkeypatch.setattr(tracker, "LAST_SECONDS", 3.0)
    monkeypatch.setattr(tracker, "OWN_SECONDS", 3.0)
    monkeypatch.setattr(delivery, "LOG_SECONDS", 0.1)
    monkeypatch.setattr(delivery, "SILENT_SECONDS", 0.5)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


def verb(uri: str, folder: Path) -> Recorded:
    return Recorded(TrackingConfig(uri=uri), folder=folder, run_name="run", verb="train", tags={},
                    sync=lambda folder: "python -m jobs.sync_tracking")


def train(tracker: Tracker, folder: Path, *, during=lambda: None) -> None:
    """What a training logs, with something happening in the middle."""
    tracker.parameters({"lr": 0.1})
    for step in range(1, 21):
        tracker.numbers(step, {"loss": 1 / step})
        tracker.flush()
        if step == 10:
            time.sleep(0.5)         # some numbers are logged before
            during()
            time.sleep(0.5)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "model.json").write_text("weights")
    tracker.file(folder / "model", "checkpoint")
    tracker.register("segmenter", "checkpoint", {"shards": "abc"})


def complete(uri: str, folder: Path) -> None:
    """Assert that the tracker has everything of `train` once, in its order."""
    client = MlflowClient(uri, registry_uri=uri)
    [run] = client.search_runs([client.get_experiment_by_name("maxtron-on-ray").experiment_id],
                               f"tags.record = '{next((folder / 'keys').iterdir()).name}'")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == list(range(1, 21))
    assert [metric.timestamp for metric in history] == sorted(metric.timestamp for metric in history)
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0.1"})
    assert [file.path for file in client.list_artifacts(run.info.run_id, "checkpoint")] == ["checkpoint/model.json"]
    assert len(client.search_model_versions(f"run_id = '{run.info.run_id}'")) == 1
    assert waiting(folder) == 0


def sync(folder: Path, uri: str) -> None:
    """As `jobs.sync_tracking`, again and again for a minute. The verb's last attempt may still be on its way."""
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "60"       # `short` puts it back
    ends = time.monotonic() + 60
    while time.monotonic() < ends and waiting(folder):
        with logging_alone(folder, wait=True):
            log_waiting(folder, uri, {})


def keep_key(tracker: Tracker, folder: Path) -> None:
    """Note the key of the record for `complete`."""
    (folder / "keys" / tracker.record.key).mkdir(parents=True)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["hang", "error", "cut", "slow"])
def test_a_tracker_that_fails_in_the_middle_gets_the_rest_later(proxy, tmp_path, mode):
    with verb(proxy.uri, tmp_path) as tracker:
        keep_key(tracker, tmp_path)
        train(tracker, tmp_path, during=lambda: setattr(proxy, "mode", mode))
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert waiting(tmp_path) > 0
    proxy.mode = "pass"
    sync(tmp_path, proxy.uri)
    complete(proxy.uri, tmp_path)


@pytest.mark.long
def test_a_tracker_that_hangs_from_the_start_holds_no_verb(proxy, tmp_path, capsys):
    proxy.mode = "hang"
    began = time.monotonic()
    with verb(proxy.uri, tmp_path) as tracker:
        keep_key(tracker, tmp_path)
        assert time.monotonic() - began < 3
        train(tracker, tmp_path)
    assert time.monotonic() - began < 20
    assert "things are not logged in MLflow" in capsys.readouterr().out
    proxy.mode = "pass"
    sync(tmp_path, proxy.uri)
    complete(proxy.uri, tmp_path)


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_has_everything_at_the_end(tmp_path):
    with running(Server(tmp_path / "mlflow")) as own:
        with verb(own.uri, tmp_path) as tracker:
            keep_key(tracker, tmp_path)
            train(tracker, tmp_path, during=own.kill)
        assert waiting(tmp_path) > 0
        own.start()
        sync(tmp_path, own.uri)
        complete(own.uri, tmp_path)


def test_a_locked_database_holds_no_verb_and_has_everything_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker, "OWN_SECONDS", 60.0)
    with verb("", tmp_path / "runs" / "first"):
        pass                                        # makes the database
    monkeypatch.setattr(tracker, "OWN_SECONDS", 3.0)
    database = tmp_path / "runs" / "tracking.db"
    folder = tmp_path / "runs" / "run"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with verb("", folder) as record:
            keep_key(record, folder)
            train(record, folder)
        assert time.monotonic() - began < 20
        assert waiting(folder) > 0
        connection.rollback()
    sync(folder, "")
    complete(f"sqlite:///{database}", folder)
