"""MLflow, and the only file that imports it: logs what the records of a run hold, and each thing once.

A project is one experiment. A run of the pipeline is a parent run of MLflow, and each of its verbs a child run. Logging
may be cut off anywhere and be done again: runs are found by the key of their record, numbers by their step, and a
registered model by its run.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.console import say
from jobs.environment import any_home
from jobs.training.own_store import ARTIFACTS, prepare_store
from jobs.training.record import Record, entry_values
from jobs.training.registry import is_refusal, promote, register
from jobs.training.tracker_address import refuse_no_tracker, sqlite_file, usable_address, whole_address
from pipeline import store
from pipeline.files import atomic_write
from pipeline.foreign_files import whole_json
from pipeline.printable import without_secrets

IDS = "tracking.json"           # inside the folder of a run: its parent run
KEY = "record"                  # the tag that names the record of a run of MLflow
LONGEST_REASON = 400            # characters of an error that are shown
LONGEST_DIGEST = 36             # characters of the digest of a data set, by MLflow's own limit
LOCAL_PAGE = "http://127.0.0.1:5000"        # of `mlflow ui`
TABLES = "mlflow.loggedArtifacts"       # MLflow's tag that lists the tables of a run


def mlflow_module():
    """MLflow, imported at its first use: the import takes seconds, and most processes never log anything."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # By default one call tries for minutes before it fails.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    # It prints two addresses for each run that ends, and the verb prints the page to open.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with any_home(), warnings.catch_warnings():
        # Under `python -OO` it looks for docstrings that are gone, and warns a dozen times.
        warnings.filterwarnings("ignore", "Failed to register a dataset source")
        import mlflow
        import mlflow.utils.mlflow_tags
    # It logs the traceback of every error of its database, which is also raised and told in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # It says how long it may wait for a registered model, which is there at once.
    logging.getLogger("mlflow.store.model_registry.abstract_store").setLevel(logging.WARNING)
    # It announces every further attempt, and the last error is told in one line.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return mlflow


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingConfig:
    """Where runs are recorded.

    An empty uri means that of the environment's MLFLOW_TRACKING_URI, and without one an SQLite file beside the run
    folders, which suits one machine.
    """

    uri: str = ""                       # e.g. "http://tracker:5000" for a cluster
    project: str = "maxtron-on-ray"     # the experiment's name


def chosen_uri(config: TrackingConfig) -> str:
    """The tracker that the recipe or the environment names; empty: the store beside the run folders."""
    return whole_address(config.uri or os.environ.get("MLFLOW_TRACKING_URI", "").strip())


class Log:
    """One record on its way to its run of MLflow, which is created where there is none. Raises whatever MLflow raises.

    run_folder: of the run of the pipeline. uri: of the tracker, "" for the store beside the run folders; a record whose
    run exists already goes where that is.
    """

    def __init__(self, record: Record, run_folder: Path, uri: str) -> None:
        state = record.state()
        uri = usable_address(state["uri"], uri) if "run_id" in state else uri
        self.record = record
        if uri:
            refuse_no_tracker(uri, folders=mlflow_module().environment_variables.MLFLOW_ALLOW_FILE_STORE.get())
        self.uri = uri or prepare_store(run_folder.resolve().parent, create_store)
        self.client = mlflow_module().MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self.experiment = self._experiment(state["project"])
        self.parent_id = self._parent(state, run_folder)
        parent = {mlflow_module().utils.mlflow_tags.MLFLOW_PARENT_RUN_ID: self.parent_id}
        self.run_id = self._run(state.get("run_id"), record.key, name=state["verb"], began=state["began"], tags=parent)
        record.update(uri=without_secrets(uri), run_id=self.run_id)
        # Name of a number -> step -> the times at which it was logged, of those that MLflow has.
        self.logged: dict[str, dict[int, set[int]]] = {}
        self.version: str | None = None         # of the model that was registered
        self.promotion: str | None = None       # what became of a model that was to be the champion
        self.before = set(self.client.get_run(self.run_id).data.metrics)

    @property
    def page(self) -> str:
        """Where a browser shows the run: an address, or the command that serves it and the address it then has."""
        path = f"/#/experiments/{self.experiment}/runs/{self.run_id}"
        if self.uri.startswith("http"):
            return f"{self.uri.rstrip('/')}{path}"
        return f"mlflow ui --backend-store-uri {self.uri}, then {LOCAL_PAGE}{path}"

    def add_all(self) -> list[str]:
        """Log the entries in their order and remove them; returns why some could not be logged.

        An entry that MLflow refuses, and files that cannot be stored, hold up only the registration of a model. Raises
        the error of a tracker that does not work, which would refuse the others too.
        """
        reasons = []
        for entry in self.record.entries():
            kind = entry.stem.partition("_")[2]
            values = entry_values(entry)
            if kind in ("register", "promote") and reasons:
                continue
            try:
                store.fetch(entry.with_suffix(""))
                if values is not None:
                    getattr(self, f"_add_{kind}")(values, entry.with_suffix(""))
            except Exception as error:
                if not kind.endswith("files") and not is_refusal(error):
                    raise
                reasons.append(reason(error))
            else:
                self.record.remove(entry)
        return reasons

    def _add_parameters(self, values: dict[str, str], _: Path) -> None:
        known = self.client.get_run(self.run_id).data.params
        new = [mlflow_module().entities.Param(name, value) for name, value in values.items() if name not in known]
        for start in range(0, len(new), 100):
            self.client.log_batch(self.run_id, params=new[start:start + 100])

    def _add_numbers(self, values: list[tuple[str, float, int, int]], _: Path) -> None:
        """Log (name, value, milliseconds, step) rows; a step of a training is logged once."""
        metric = mlflow_module().entities.Metric
        new = [metric(name, value, at, step) for name, value, at, step in values if self._is_new(name, at, step)]
        for start in range(0, len(new), 500):
            self.client.log_batch(self.run_id, metrics=new[start:start + 500])

    def _is_new(self, name: str, at: int, step: int) -> bool:
        """Whether MLflow lacks a number. That of a step stays; a number without steps (step 0) may be replaced."""
        if name not in self.logged:
            history = self.client.get_metric_history(self.run_id, name) if name in self.before else []
            self.logged[name] = {}
            for metric in history:
                self.logged[name].setdefault(metric.step, set()).add(metric.timestamp)
        times = self.logged[name].setdefault(step, set())
        is_new = not times if step else at not in times
        times.add(at)
        return is_new

    def _add_trial(self, values: dict[str, Any], _: Path) -> None:
        """Log a trial of a sweep as a run below this one, found again by its name."""
        mlflow = mlflow_module()
        tags = {mlflow.utils.mlflow_tags.MLFLOW_PARENT_RUN_ID: self.run_id, "error": values["error"]}
        run = self._run(None, f"{self.record.key}/{values['name']}", name=values["name"], began=values["time"],
                        tags=tags)
        parameters = [mlflow.entities.Param(name, value) for name, value in values["parameters"].items()]
        metrics = [mlflow.entities.Metric(name, value, values["time"], 0) for name, value in values["numbers"].items()]
        self.client.log_batch(run, params=parameters, metrics=metrics)
        self.client.set_terminated(run, "FAILED" if values["error"] else "FINISHED", end_time=values["time"])

    def _add_tags(self, values: dict[str, str], _: Path) -> None:
        for name, value in values.items():
            self.client.set_tag(self.run_id, name, value)

    def _add_files(self, values: dict[str, str | None], files: Path) -> None:
        self.client.log_artifacts(self.run_id, str(files), values["folder"])

    def _add_table(self, values: dict[str, str], files: Path) -> None:
        """Log a table as `mlflow.log_table` does: a file, and the tag by which MLflow's page finds it."""
        self.client.log_artifacts(self.run_id, str(files))
        known = json.loads(self.client.get_run(self.run_id).data.tags.get(TABLES, "[]"))
        table = {"path": values["file"], "type": "table"}
        self.client.set_tag(self.run_id, TABLES, json.dumps([*(each for each in known if each != table), table]))

    def _add_dataset(self, values: dict[str, str], _: Path) -> None:
        """Log what a verb read; the same input is kept once."""
        entities = mlflow_module().entities
        dataset = entities.Dataset(name=values["name"], digest=values["digest"][:LONGEST_DIGEST], source_type="local",
                                   source=json.dumps({"uri": values["source"]}))
        context = entities.InputTag(key="mlflow.data.context", value=values["context"])
        self.client.log_inputs(self.run_id, [entities.DatasetInput(dataset=dataset, tags=[context])])

    def _add_parent_numbers(self, values: list[tuple[str, float, int, int]], _: Path) -> None:
        """Log numbers of the whole run; the latest one counts."""
        mlflow = mlflow_module()
        known = {name: [metric.timestamp for metric in self.client.get_metric_history(self.parent_id, name)]
                 for name in {name for name, *_ in values}}
        # MLflow takes the one of the latest time, and a clock may have been set back since.
        new = [mlflow.entities.Metric(name, value, max([at, *(time + 1 for time in known[name])]), step)
               for name, value, at, step in values if at not in known[name]]
        self.client.log_batch(self.parent_id, metrics=new)

    def _add_parent_tags(self, values: dict[str, str], _: Path) -> None:
        tags = [mlflow_module().entities.RunTag(name, value) for name, value in values.items()]
        self.client.log_batch(self.parent_id, tags=tags)

    def _add_parent_files(self, values: dict[str, str | None], files: Path) -> None:
        self.client.log_artifacts(self.parent_id, str(files), values["folder"])

    def _add_status(self, values: dict[str, Any], _: Path) -> None:
        for run_id in (self.run_id, self.parent_id):
            if values["status"] == "RUNNING":
                self.client.update_run(run_id, status="RUNNING")
            else:
                # A clock may have been set back meanwhile, and a duration is never negative.
                ended = max(values["time"], self.client.get_run(run_id).info.start_time)
                self.client.set_terminated(run_id, values["status"], end_time=ended)

    def _add_register(self, values: dict[str, Any], _: Path) -> None:
        self.version = register(self.client, self.run_id, values)

    def _add_promote(self, values: dict[str, Any], files: Path) -> None:
        def register_it() -> str:
            self.client.log_artifacts(self.run_id, str(files), "checkpoint")
            return register(self.client, self.run_id, {**values, "folder": "checkpoint",
                                                       "tags": {**values.get("tags", {}), "sha256": values["sha256"]}})

        self.promotion = promote(self.client, values, register_it)

    def _experiment(self, project: str) -> str:
        """The id of the project's experiment.

        Its artifact folder is fixed at creation: beside a database on disk, where MLflow would take the folder in which
        the verb was started, and where the server decides otherwise.
        """
        experiment = self.client.get_experiment_by_name(project)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            raise ValueError(f"the experiment {project!r} of {self.uri} was deleted; restore it (mlflow experiments "
                             f"restore --experiment-id {experiment.experiment_id}), or set tracking.project to another "
                             "name")
        if experiment is not None:
            return experiment.experiment_id
        database = sqlite_file(self.uri)
        location = (database.parent / ARTIFACTS).as_uri() if database else None
        return self.client.create_experiment(project, artifact_location=location)

    def _parent(self, state: dict[str, Any], run_folder: Path) -> str:
        """The id of the parent run, which `tracking.json` keeps."""
        known = stored_ids(run_folder)
        parent = self._run(known.get("parent"), state["parent_key"], name=state["run"], began=state["began"],
                           tags={"run": state["run"]})
        ids = {**known, "uri": without_secrets(self.uri), "parent": parent, "key": state["parent_key"]}
        if ids != known:
            atomic_write(run_folder / IDS, json.dumps(ids, indent=1).encode())
        return parent

    def _run(self, run_id: str | None, key: str, *, name: str, began: int, tags: dict[str, str]) -> str:
        """The id of a run: that of `run_id` if it is there, else that of the key, else that of a new one."""
        if run_id is not None and self._is_there(run_id):
            return run_id
        found = self.client.search_runs([self.experiment], f"tags.{KEY} = '{key}'", max_results=1)
        if found:
            return found[0].info.run_id
        return self.client.create_run(self.experiment, start_time=began, run_name=name,
                                      tags={**tags, KEY: key}).info.run_id

    def _is_there(self, run_id: str) -> bool:
        try:
            return self.client.get_run(run_id).info.lifecycle_stage == "active"
        except mlflow_module().exceptions.MlflowException as error:
            if not is_refusal(error):
                raise
            return False


def stored_ids(run_folder: Path) -> dict[str, Any]:
    """The content of `tracking.json`, {} without it. One that is cut off is made again, with a new parent run."""
    path = run_folder / IDS
    known = whole_json(path)
    if known is None and path.is_file():
        say(f"{path} is cut off or damaged; this run is recorded under a new parent run of MLflow")
    return known or {}


def reason(error: Exception) -> str:
    """An error in one line."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


def create_store(uri: str) -> None:
    """Fill an empty database with MLflow's tables."""
    mlflow_module().MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
