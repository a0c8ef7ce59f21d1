"""Recording of runs in MLflow, and the only file that imports it.

A project is one experiment. A run of the pipeline is a parent run of MLflow, and each of its verbs a child run. The
driver opens them before workers start; workers get a picklable `RunHandle`, and only rank 0 writes. A tracker that
stops answering never ends a training: the failed calls are counted and reported at the end. A tracker that cannot be
reached at the start stops the verb, since few people want a run that is not recorded.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.console import say
from jobs.training.own_store import ARTIFACTS, DATABASE, can_hold_store, is_own_store, prepare_store
from pipeline.files import atomic_write
from pipeline.foreign_files import whole_json

FLUSH_SECONDS = 5.0             # between writes of numbers
SILENT_SECONDS = 300.0          # after a failed write, until the next attempt; numbers wait in memory
MOST_WAITING = 100_000          # numbers kept in memory; beyond that the oldest are dropped


def _mlflow():
    """MLflow, imported at its first use: the import takes seconds, and most processes never record anything."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # By default one call tries for minutes before it fails, and training would wait for it.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    import mlflow
    import mlflow.utils.mlflow_tags
    return mlflow


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingConfig:
    """Where runs are recorded.

    An empty uri means that of the environment's MLFLOW_TRACKING_URI, and without one an SQLite file beside the run
    folders, which suits one machine.
    """

    uri: str = ""                       # e.g. "http://tracker:5000" for a cluster
    project: str = "maxtron-on-ray"     # the experiment's name


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHandle:
    """One open run of MLflow; it is sent to workers."""

    uri: str
    run_id: str
    parent_id: str
    experiment_id: str


def can_record(config: TrackingConfig, folder: Path) -> bool:
    """Whether the verbs of a run in `folder` can be recorded: by default not if its place is read-only."""
    if _chosen_uri(config):
        return True
    return can_hold_store(folder.resolve().parent) and (not folder.exists() or os.access(folder, os.W_OK))


def open_run(config: TrackingConfig, *, folder: Path, run_name: str, verb: str, tags: Mapping[str, str]) -> RunHandle:
    """Open the child run of a verb under the parent run of the pipeline run, and create both where they do not exist.

    folder: that of the pipeline run. Its `tracking.json` stores the run ids, so that all verbs share one parent, and a
    verb that is started again after it was killed continues its own child run (the tag `attempt` counts up).
    Raises ConnectionError naming the uri when the tracker cannot be reached.
    """
    stored = folder / "tracking.json"
    known = _stored_runs(stored)
    mlflow = _mlflow()
    uri = _chosen_uri(config)
    if uri and not config.uri:
        say(f"recording in MLFLOW_TRACKING_URI={uri}")
    try:
        uri = uri or prepare_store(folder.resolve().parent, _create_store)
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment = _experiment(client, config.project, folder)
        parent = known.get("parent")
        if not _exists(client, parent):
            known = {}
            parent = client.create_run(experiment, run_name=run_name, tags={"run": run_name}).info.run_id
        client.update_run(parent, status="RUNNING")
        child = known.get("open", {}).get(verb)
        attempt = 1
        if _exists(client, child):
            attempt = int(client.get_run(child).data.tags.get("attempt", "1")) + 1
            client.update_run(child, status="RUNNING")
        else:
            nested = {mlflow.utils.mlflow_tags.MLFLOW_PARENT_RUN_ID: parent}
            child = client.create_run(experiment, run_name=verb, tags=nested).info.run_id
        for name, value in {**tags, "verb": verb, "run": run_name, "attempt": str(attempt)}.items():
            client.set_tag(child, name, value)
    except _tracker_errors() as error:
        raise ConnectionError(f"the tracker {uri or folder.parent / DATABASE} cannot be used: {_first_line(error)}. "
                              "Start it, or set tracking.uri to another one (empty: MLFLOW_TRACKING_URI, or an SQLite "
                              "file beside the run folders).") from error
    open_runs = {**known.get("open", {}), verb: child}
    if not folder.exists() or os.access(folder, os.W_OK):
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(stored, json.dumps({"uri": uri, "parent": parent, "open": open_runs}, indent=1).encode())
    return RunHandle(uri=uri, run_id=child, parent_id=parent, experiment_id=experiment)


class Tracker:
    """Writes to one run: parameters, numbers over steps, tags and files. Never raises; `failures` lists lost calls."""

    def __init__(self, handle: RunHandle) -> None:
        self.handle = handle
        self.client = _mlflow().MlflowClient(tracking_uri=handle.uri, registry_uri=handle.uri)
        self.buffer: list = []              # mlflow.entities.Metric
        self.flushed = time.monotonic()
        self.silent_until = 0.0
        self.failures: list[str] = []

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Record parameters once. Long values are cut; the whole recipe is stored as an artifact."""
        known = self._try(lambda: self.client.get_run(self.handle.run_id).data.params) or {}
        new = [_mlflow().entities.Param(k, str(v)[:500]) for k, v in values.items() if k not in known]
        for start in range(0, len(new), 100):
            self._log(params=new[start:start + 100])

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers at a step. They are buffered and written every few seconds."""
        now = int(time.time() * 1000)
        metric = _mlflow().entities.Metric
        self.buffer += [metric(name, float(value), now, step) for name, value in values.items()]
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def last_step(self, name: str = "loss") -> int:
        """The last step recorded under `name`, 0 where there is none; a resumed run must not record a step twice."""
        history = self._try(lambda: self.client.get_metric_history(self.handle.run_id, name)) or []
        return max((metric.step for metric in history), default=0)

    def flush(self, *, last: bool = False) -> None:
        """Write the buffered numbers. After a failure they wait for the next flush, unless this is the last."""
        if time.monotonic() < self.silent_until and not last:
            return
        self.flushed = time.monotonic()
        while self.buffer:
            if not self._log(metrics=self.buffer[:500]):
                self.silent_until = time.monotonic() + SILENT_SECONDS
                self.buffer = self.buffer[-MOST_WAITING:]
                return
            del self.buffer[:500]

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record facts that become known only later, such as fingerprints."""
        for name, value in values.items():
            self._try(lambda n=name, v=value: self.client.set_tag(self.handle.run_id, n, str(v)))

    def file(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or all files of a folder, as an artifact."""
        method = "log_artifacts" if path.is_dir() else "log_artifact"
        self._try(lambda: getattr(self.client, method)(self.handle.run_id, str(path), folder))

    def json(self, name: str, values: Any) -> None:
        """Store plain values as a JSON artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(json.dumps(values, indent=1, sort_keys=True, default=str))
            self.file(path)

    def register(self, name: str, artifact_folder: str, tags: Mapping[str, Any]) -> str | None:
        """Register the artifact folder as a new version of model `name`, aliased 'newest'; returns its version."""
        def create() -> str:
            if not any(model.name == name for model in self.client.search_registered_models(f"name='{name}'")):
                self.client.create_registered_model(name)
            source = f"{self.client.get_run(self.handle.run_id).info.artifact_uri}/{artifact_folder}"
            version = self.client.create_model_version(name, source=source, run_id=self.handle.run_id,
                                                       tags={k: str(v) for k, v in tags.items()})
            self.client.set_registered_model_alias(name, "newest", version.version)
            return str(version.version)
        return self._try(create)

    def finish(self, *, failed: bool = False) -> None:
        """Close the child run and its parent; a verb that runs again afterwards opens a new child."""
        self.flush(last=True)
        status = "FAILED" if failed else "FINISHED"
        for run in (self.handle.run_id, self.handle.parent_id):
            self._try(lambda run=run: self.client.set_terminated(run, status))
        if self.failures:
            say(f"tracking: {len(self.failures)} calls to {self.handle.uri} failed; the last error: "
                f"{self.failures[-1]}")

    def _log(self, **batch) -> bool:
        """Write one batch of numbers or parameters; returns whether it arrived."""
        return self._try(lambda: self.client.log_batch(self.handle.run_id, **batch) or True) is True

    def _try(self, call):
        try:
            return call()
        except _tracker_errors() as error:
            self.failures.append(_first_line(error))
            return None


class NoTracker(Tracker):
    """Records nothing, where there is no place for it."""

    def __init__(self) -> None:
        self.handle = RunHandle(uri="", run_id="", parent_id="", experiment_id="")
        self.client = None
        self.failures = []

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""

    def flush(self, *, last: bool = False) -> None:
        """See `Tracker`."""

    def _try(self, call):
        return None


def close_run(folder: Path, verb: str) -> None:
    """Forget the finished child run of a verb, so that running the verb again opens a new one."""
    stored = folder / "tracking.json"
    if stored.is_file() and os.access(folder, os.W_OK):
        known = _stored_runs(stored)
        known.get("open", {}).pop(verb, None)
        atomic_write(stored, json.dumps(known, indent=1).encode())


def _stored_runs(path: Path) -> dict[str, Any]:
    """The content of `tracking.json`. One that is cut off is made again: the verbs then get a new parent run."""
    if not path.is_file():
        return {}
    known = whole_json(path, needs={"open": dict})
    if known is None:
        say(f"{path} is cut off or damaged; this run is recorded under a new parent run of MLflow")
    return known or {}


def _experiment(client, project: str, folder: Path) -> str:
    """The id of the project's experiment. Its artifact folder is fixed at creation, so it is given explicitly."""
    experiment = client.get_experiment_by_name(project)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        raise ValueError(f"the experiment {project!r} of {client.tracking_uri} was deleted; restore it (mlflow "
                         f"experiments restore --experiment-id {experiment.experiment_id}), or set tracking.project to "
                         "another name")
    if experiment is not None:
        return experiment.experiment_id
    place = folder.resolve().parent
    location = (place / ARTIFACTS).as_uri() if is_own_store(client.tracking_uri, place) else None
    return client.create_experiment(project, artifact_location=location)


def _chosen_uri(config: TrackingConfig) -> str:
    """The tracker that the recipe or the environment names; empty: the store beside the run folders."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI", "")


def _create_store(uri: str) -> None:
    """Fill an empty database with MLflow's tables."""
    _mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)


def _tracker_errors() -> tuple[type[Exception], ...]:
    """What a tracker may raise: its own errors, those of the network and of files, those of its database."""
    from sqlalchemy.exc import SQLAlchemyError
    return (_mlflow().exceptions.MlflowException, OSError, SQLAlchemyError, sqlite3.Error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _exists(client, run_id: str | None) -> bool:
    if run_id is None:
        return False
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except _mlflow().exceptions.MlflowException:
        return False
