"""Odd addresses of trackers: each is used where it says, or one line names what is wrong with it; the verb goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.training.record import waiting
from jobs.training.tracker import Recorded
from jobs.training.tracker_address import sqlite_file, usable_address, whole_address
from jobs.training.tracking import TrackingConfig

FOLDER = "MLflow reads it as a folder"
NO_FILE = "the address names no file"
ODD = {
    "mlruns": FOLDER, "~/mlruns": FOLDER, "/dev/null": FOLDER, "/no/where/": FOLDER, "file:relative": FOLDER,
    "file:///tmp/a folder": FOLDER, "127.0.0.1:5000": FOLDER, "DATABRICKS": FOLDER, "'http://127.0.0.1:9'": FOLDER,
    "sqlite://": NO_FILE, "sqlite:": NO_FILE, "sqlite:///": NO_FILE, "SQLite:///:memory:": NO_FILE,
    "localhost:5000": "unsupported URI 'localhost:5000'", "gopher://x": "unsupported URI 'gopher://x'",
    "s3://bucket/runs": "unsupported URI 's3://bucket/runs'", "databricks-uc": "Unity Catalog",
    "databricks": "Databricks credential", "postgresql://me@127.0.0.1:9/runs": "No module named 'psycopg",
    "http://127.0.0.1:9": "Connection refused", "HTTP://127.0.0.1:9/": "Connection refused",
    "https://127.0.0.1:9/below/": "Connection refused", "http://127.0.0.1:99999": "Invalid url",
    "http://[::1": "Invalid IPv6 URL"}


def recorded(folder: Path) -> dict[str, str]:
    """Record a verb on the tracker that the environment names; returns the ids of its run."""
    with Recorded(TrackingConfig(), folder=folder, run_name="run", verb="train", tags={},
                  sync=lambda folder: "python -m jobs.sync_tracking") as tracker:
        tracker.json("train.json", {"a": 1})
    return tracker.ids


@pytest.mark.parametrize(("uri", "why"), ODD.items())
def test_an_address_that_is_no_tracker_is_named_and_nothing_is_lost_or_made(tmp_path, monkeypatch, capsys, uri, why):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    ids = recorded(tmp_path / "runs" / "run")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tracking: ")]
    assert ids["run_id"] is None
    assert any(why in line for line in lines)
    assert lines[-1].endswith("log them by python -m jobs.sync_tracking")
    assert waiting(tmp_path / "runs" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]       # no folder of that name


@pytest.mark.parametrize("uri", ["http://me:s3cret@127.0.0.1:9", "http://s3cret@[::1", "postgresql://me:s3cret@db/runs",
                                 "gopher://me:s3cret@x", "http://127.0.0.1:9/?token=s3cret"])
def test_a_password_in_an_address_is_not_printed(tmp_path, monkeypatch, capsys, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    recorded(tmp_path / "runs" / "run")
    out, err = capsys.readouterr()
    assert "recording in MLFLOW_TRACKING_URI=" in out
    assert "***" in out
    assert "s3cret" not in out + err


def test_a_tracker_that_is_noted_without_its_password_is_found_with_the_address_of_this_process():
    whole = "http://me:s3cret@host:5000"
    assert usable_address("http://***@host:5000", whole) == whole
    assert usable_address(whole, "http://me:new@host:5000") == "http://me:new@host:5000"      # of an earlier version
    assert usable_address("http://other:5000", whole) == "http://other:5000"
    assert usable_address("", whole) == ""      # the store beside the runs
    with pytest.raises(ConnectionError, match=r"http://\*\*\*@host:5000 .* MLFLOW_TRACKING_URI"):
        usable_address("http://***@host:5000", "http://other:5000")


@pytest.mark.parametrize("uri", ["sqlite:///mine.db", "sqlite:///~/mine.db", "sqlite:///{0}/not there/mine.db"])
def test_a_database_holds_its_artifacts_beside_it_wherever_the_verb_was_started(tmp_path, monkeypatch, capsys, uri):
    """MLflow would put them into `mlruns` of the present folder, those of all such databases together."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(tmp_path))
    ids = recorded(tmp_path / "runs" / "run")
    database = sqlite_file(ids["uri"])
    assert database.is_absolute()
    assert database.name == "mine.db"
    assert not (tmp_path / "mlruns").exists()
    [artifact] = (database.parent / "artifacts").rglob("train.json")
    assert MlflowClient(ids["uri"]).get_run(ids["run_id"]).info.artifact_uri == artifact.parent.as_uri()
    assert f"mlflow ui --backend-store-uri {ids['uri']}, then" in ids["page"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ids["uri"])
    assert recorded(tmp_path / "runs" / "run")["parent_id"] == ids["parent_id"]


def test_an_address_keeps_its_options():
    assert whole_address("sqlite:////data/a.db?timeout=60") == "sqlite:////data/a.db?timeout=60"
    assert whole_address("http://tracker:5000/?a=b") == "http://tracker:5000/?a=b"
    assert sqlite_file("sqlite:////data/a.db?timeout=60") == Path("/data/a.db")


def test_a_home_folder_that_is_unknown_is_named():
    with pytest.raises(ValueError, match="it is not known which home folder '~nobody-here' stands for"):
        whole_address("sqlite:///~nobody-here/a.db")
