"""MLflow: one experiment per project, a parent run per road, a child run per verb; the only mlflow import.

The driver opens runs before workers start; workers get a picklable `RunHandle` and only rank 0 writes. A tracker that
stops answering never ends a training: its calls are counted and reported at the end. A tracker that cannot be reached
at the start does stop the verb, since a run nobody recorded is rarely what was wanted.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import atomic_write

FLUSH_SECONDS = 5.0             # between writes of numbers
SILENT_SECONDS = 300.0          # numbers wait in memory before the next attempt after one that failed
MOST_WAITING = 100_000          # numbers that wait; the oldest go first


def _mlflow():
    """MLflow, at its first use: importing it takes seconds, and most processes of a road never record anything."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # By default one call tries for minutes before it fails, and training would wait for it.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    import mlflow
    import mlflow.utils.mlflow_tags
    return mlflow


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingConfig:
    """Where runs are recorded. An empty uri is an SQLite file beside the run folders: fine for one machine."""

    uri: str = ""                       # e.g. "http://tracker:5000" for a cluster
    project: str = "maxtron-on-ray"     # the experiment's name


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHandle:
    """One open run; travels to workers."""

    uri: str
    run_id: str
    parent_id: str
    experiment_id: str


def open_run(config: TrackingConfig, *, folder: Path, road: str, verb: str, tags: Mapping[str, str]) -> RunHandle:
    """Open the child run of a verb under the road's parent run, making both when they do not exist yet.

    folder: the road's folder; the run ids are remembered in `tracking.json` there, so a verb started again after a kill
    continues its own run (tag `attempt` counts up), and all verbs of a road share one parent.
    Raises ConnectionError naming the uri when the tracker cannot be reached.
    """
    uri = config.uri or f"sqlite:///{folder.resolve().parent / 'tracking.db'}"
    remembered = folder / "tracking.json"
    known = json.loads(remembered.read_text()) if remembered.is_file() else {}
    folder.mkdir(parents=True, exist_ok=True)
    mlflow = _mlflow()
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    try:
        experiment = _experiment(client, config.project, folder)
        parent = known.get("parent") if known.get("uri") == uri else None
        if not _exists(client, parent):
            known = {}
            parent = client.create_run(experiment, run_name=road, tags={"road": road}).info.run_id
        client.update_run(parent, status="RUNNING")
        child = known.get("open", {}).get(verb)
        attempt = 1
        if _exists(client, child):
            attempt = int(client.get_run(child).data.tags.get("attempt", "1")) + 1
            client.update_run(child, status="RUNNING")
        else:
            nested = {mlflow.utils.mlflow_tags.MLFLOW_PARENT_RUN_ID: parent}
            child = client.create_run(experiment, run_name=verb, tags=nested).info.run_id
        for name, value in {**tags, "verb": verb, "road": road, "attempt": str(attempt)}.items():
            client.set_tag(child, name, value)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise ConnectionError(f"the tracker {uri} cannot be used: {error}. Start it, or set tracking.uri in the "
                              "recipe (empty: an SQLite file beside the run folders).") from error
    open_runs = {**known.get("open", {}), verb: child}
    atomic_write(remembered, json.dumps({"uri": uri, "parent": parent, "open": open_runs}, indent=1).encode())
    return RunHandle(uri=uri, run_id=child, parent_id=parent, experiment_id=experiment)


class Tracker:
    """Writes one run: parameters, numbers over steps, files. Never raises; `failures` counts what was lost."""

    def __init__(self, handle: RunHandle) -> None:
        self.handle = handle
        self.client = _mlflow().MlflowClient(tracking_uri=handle.uri, registry_uri=handle.uri)
        self.buffer: list = []              # mlflow.entities.Metric
        self.flushed = time.monotonic()
        self.silent_until = 0.0
        self.failures: list[str] = []

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Record parameters once; long values are cut (the whole config goes in as an artifact)."""
        known = self._try(lambda: self.client.get_run(self.handle.run_id).data.params) or {}
        new = [_mlflow().entities.Param(k, str(v)[:500]) for k, v in values.items() if k not in known]
        for start in range(0, len(new), 100):
            self._log(params=new[start:start + 100])

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers at a step; buffered, and written every few seconds."""
        now = int(time.time() * 1000)
        metric = _mlflow().entities.Metric
        self.buffer += [metric(name, float(value), now, step) for name, value in values.items()]
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def last_step(self, name: str = "loss") -> int:
        """The last step recorded under `name`, 0 when none: a resumed run does not record steps twice."""
        history = self._try(lambda: self.client.get_metric_history(self.handle.run_id, name)) or []
        return max((metric.step for metric in history), default=0)

    def flush(self, *, last: bool = False) -> None:
        """Write what is buffered; what a tracker does not take waits for the next time, and is lost after the last."""
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
        """Record facts known only later, such as fingerprints."""
        for name, value in values.items():
            self._try(lambda n=name, v=value: self.client.set_tag(self.handle.run_id, n, str(v)))

    def file(self, path: Path, folder: str | None = None) -> None:
        """Keep a file, or all files of a folder, as an artifact."""
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        self._try(lambda: log(self.handle.run_id, str(path), folder))

    def json(self, name: str, values: Any) -> None:
        """Keep plain values as a JSON artifact."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(json.dumps(values, indent=1, sort_keys=True, default=str))
            self.file(path)

    def register(self, name: str, artifact_folder: str, tags: Mapping[str, Any]) -> str | None:
        """Register the artifact folder as a new version of model `name`, aliased 'newest'; its version number."""
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
        """Close the run; a verb that runs again afterwards opens a new one."""
        self.flush(last=True)
        status = "FAILED" if failed else "FINISHED"
        for run in (self.handle.run_id, self.handle.parent_id):    # the road rests until its next verb
            self._try(lambda run=run: self.client.set_terminated(run, status))
        if self.failures:
            print(f"tracking: {len(self.failures)} calls to {self.handle.uri} failed, the last: {self.failures[-1]}",
                  flush=True)

    def _log(self, **what) -> bool:
        """One `log_batch`; whether it arrived."""
        return self._try(lambda: self.client.log_batch(self.handle.run_id, **what) or True) is True

    def _try(self, call):
        try:
            return call()
        except (_mlflow().exceptions.MlflowException, OSError) as error:
            self.failures.append(str(error).splitlines()[0])
            return None


def close_run(folder: Path, verb: str) -> None:
    """Forget the finished run of a verb, so that running the verb again makes a new one."""
    remembered = folder / "tracking.json"
    if remembered.is_file():
        known = json.loads(remembered.read_text())
        known.get("open", {}).pop(verb, None)
        atomic_write(remembered, json.dumps(known, indent=1).encode())


def _experiment(client, project: str, folder: Path) -> str:
    """The project's experiment. Its artifact folder is fixed when it is made, so it is always given explicitly."""
    found = client.get_experiment_by_name(project)
    if found is not None:
        return found.experiment_id
    location = (folder.resolve().parent / "artifacts").as_uri() if client.tracking_uri.startswith("sqlite") else None
    return client.create_experiment(project, artifact_location=location)


def _exists(client, run_id: str | None) -> bool:
    if run_id is None:
        return False
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except _mlflow().exceptions.MlflowException:
        return False
