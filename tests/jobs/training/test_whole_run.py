"""What MLflow holds of a whole run: headline numbers, description, report, inputs, tables, and the champion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.training.record import Record, waiting
from jobs.training.tracker import Recorded
from jobs.training.tracking import TrackingConfig
from tests.jobs.training.test_tracking import away, config, database, killed_at, sync, verb

__all__ = ["away", "config", "database"]        # fixtures

NUMBERS = {"near_online/vpq_percent": 75.5, "near_online/switches": 5}
ROWS = [{"class": "sky", "vpq": 96.5}, {"class": "disc", "vpq": None}]
SHARDS = "9692c96fb9fc756060f4b56d7ebf0938c6e54b5ddc6d56c4be06c73d69b4636c"


def log_everything(recorded: Recorded, folder: Path) -> dict[str, str]:
    """A verb that logs one thing of each kind; returns the ids."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text("<p>report</p>")
    with recorded as tracker:
        tracker.parent_numbers(NUMBERS)
        tracker.parent_tags({"mlflow.note.content": "to repeat it: `x`"})
        tracker.parent_file(folder / "report.html")
        tracker.table("classes_vpq.json", ROWS)
        tracker.table("classes_miou.json", ROWS)
        tracker.dataset("vipseg shards", digest=SHARDS, source="/data/shards", context="training")
    return tracker.ids


def refuse_missing(uri: str, parent_id: str, run_id: str) -> None:
    client = MlflowClient(uri)
    parent = client.get_run(parent_id)
    assert parent.data.metrics == NUMBERS
    assert parent.data.tags["mlflow.note.content"] == "to repeat it: `x`"
    assert [file.path for file in client.list_artifacts(parent_id)] == ["report.html"]
    [read] = client.get_run(run_id).inputs.dataset_inputs
    assert (read.dataset.name, read.dataset.digest) == ("vipseg shards", SHARDS[:36])
    assert [(tag.key, tag.value) for tag in read.tags] == [("mlflow.data.context", "training")]
    with pytest.MonkeyPatch.context() as patch:         # it asks the tracker of the environment for the runs
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        table = client.load_table(parent.info.experiment_id, "classes_vpq.json", run_ids=[run_id])
    assert table["class"].tolist() == ["sky", "disc"]
    assert table["vpq"][0] == 96.5
    tables = json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert tables == [{"path": f"classes_{name}.json", "type": "table"} for name in ("vpq", "miou")]


def test_the_run_of_the_pipeline_has_what_its_verbs_found_out(config, tmp_path):
    ids = log_everything(verb(config, tmp_path / "run"), tmp_path / "run")
    refuse_missing(config.uri, ids["parent_id"], ids["run_id"])
    experiment = MlflowClient(config.uri).get_run(ids["run_id"]).info.experiment_id
    assert ids["page"] == (f"mlflow ui --backend-store-uri {config.uri}, then http://127.0.0.1:5000/#/experiments/"
                           f"{experiment}/runs/{ids['run_id']}")


@pytest.mark.parametrize("kind", ["parent_numbers", "parent_tags", "parent_files", "table", "dataset"])
def test_a_tracker_that_was_away_gets_all_of_it_once_also_when_logging_is_cut_off(config, away, tmp_path, monkeypatch,
                                                                                kind):
    log_everything(verb(away, tmp_path), tmp_path)
    with monkeypatch.context() as killed:
        remove = Record.remove
        killed.setattr(Record, "remove", lambda self, entry: killed_at(entry, kind) or remove(self, entry))
        with pytest.raises(KeyboardInterrupt):
            sync(config, tmp_path)
    assert sync(config, tmp_path) == []
    assert waiting(tmp_path) == 0
    parent = json.loads((tmp_path / "tracking.json").read_text())["parent"]
    client = MlflowClient(config.uri)
    [run] = client.search_runs([client.get_run(parent).info.experiment_id], f"tags.mlflow.parentRunId = '{parent}'")
    refuse_missing(config.uri, parent, run.info.run_id)
    assert len(client.get_metric_history(parent, "near_online/vpq_percent")) == 1


def test_the_latest_number_of_a_run_counts(config, tmp_path):
    for value in (3.0, 2.0):
        with verb(config, tmp_path, "evaluate") as tracker:
            tracker.parent_numbers({"near_online/switches": value})
    assert MlflowClient(config.uri).get_run(tracker.ids["parent_id"]).data.metrics == {"near_online/switches": 2.0}


def promoted(config: TrackingConfig, folder: Path, name: str, score: float, metric: str = "vpq", *,
             lower: bool = False) -> str | None:
    """Ask for the alias with weights of a name of their own."""
    model = folder / name
    model.mkdir(parents=True, exist_ok=True)
    (model / "model.json").write_text(name)
    with verb(config, folder, "promote") as tracker:
        tracker.promote(model, {"name": folder.name, "sha256": name, "metric": metric, "score": score, "lower": lower,
                                "description": f"{score} {metric}"})
    return tracker.ids["promotion"]


def champion(config: TrackingConfig, folder: Path):
    return MlflowClient(registry_uri=config.uri).get_model_version_by_alias(folder.name, "champion")


def test_the_champion_is_the_best_by_the_named_number(config, tmp_path):
    folder = tmp_path / "best_by_vpq"
    assert promoted(config, folder, "first", 70.0) == "version 1 of best_by_vpq is the champion: 70.00 vpq"
    assert "stays the champion: 70.00 vpq" in promoted(config, folder, "worse", 60.0)
    assert int(champion(config, folder).version) == 1
    assert promoted(config, folder, "better", 71.0) == "version 2 of best_by_vpq is the champion: 71.00 vpq"
    assert "cannot be compared" in promoted(config, folder, "other", 99.0, "switches")
    assert len(MlflowClient(registry_uri=config.uri).search_model_versions("name='best_by_vpq'")) == 2
    assert promoted(config, folder, "better", 71.0) == "version 2 of best_by_vpq is the champion: 71.00 vpq"
    held = champion(config, folder)
    assert (int(held.version), held.description) == (2, "71.0 vpq")
    assert Path(held.source.removeprefix("file://"), "model.json").read_text() == "better"


def test_fewer_switches_are_better(config, tmp_path):
    folder = tmp_path / "best_by_switches"
    promoted(config, folder, "first", 5, "switches", lower=True)
    assert "stays" in promoted(config, folder, "worse", 6, "switches", lower=True)
    assert "version 2" in promoted(config, folder, "better", 4, "switches", lower=True)


def test_a_version_that_is_registered_already_is_taken(config, tmp_path):
    folder = tmp_path / "registered"
    folder.mkdir()
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text("x")
    with verb(config, folder) as tracker:
        tracker.file(folder / "model", "checkpoint")
        tracker.register("registered", "checkpoint", {"sha256": "mine"})
    assert promoted(config, folder, "mine", 1.0) == "version 1 of registered is the champion: 1.00 vpq"
    assert len(MlflowClient(registry_uri=config.uri).search_model_versions("name='registered'")) == 1


def test_a_promotion_waits_for_a_tracker_that_is_away(config, away, tmp_path):
    folder = tmp_path / "later"
    assert promoted(away, folder, "first", 70.0) is None
    assert sync(config, folder) == []
    assert champion(config, folder).description == "70.0 vpq"
