"""What a verb logs, written to its record; and the record's beginning and end.

The driver opens the record before workers start. Workers get the record, and only rank 0 writes. Only the driver talks
to MLflow (delivery.py), so a tracker never makes a training wait.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.console import say
from jobs.training.delivery import Delivery
from jobs.training.own_store import can_hold_store
from jobs.training.record import FOLDER, Record, kept_bytes, milliseconds, records, waiting
from jobs.training.tracker_address import sqlite_file
from jobs.training.tracking import IDS, TrackingConfig, chosen_uri, stored_ids
from pipeline.errors import BadInput
from pipeline.files import atomic_write
from pipeline.printable import without_secrets

FLUSH_SECONDS = 5.0             # between entries of numbers
LONGEST_PARAMETER = 500         # characters
LAST_SECONDS = 20.0             # for the tracker to take what is left when a verb ends
OWN_SECONDS = 60.0              # the same of a database on disk, which the first verb creates
STOPPED_SECONDS = 10.0          # the same when the verb was stopped
NO_IDS = dict.fromkeys(("uri", "run_id", "parent_id", "version", "promotion", "page"))
BYTES_PER_SECOND = 10 * 2**20   # that a tracker is expected to take of files


def can_record(config: TrackingConfig, folder: Path) -> bool:
    """Whether the verbs of a run in `folder` can be recorded: by default not if its place is read-only."""
    if chosen_uri(config):
        return True
    return can_hold_store(folder.resolve().parent) and _is_writable(folder)


def record_folder(folder: Path) -> Path:
    """The folder in which the records of a run are kept: that of the run, or a temporary one where it is read-only."""
    if _is_writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    temporary = Path(tempfile.mkdtemp(prefix="tracking-"))
    if (folder / IDS).is_file():
        shutil.copy(folder / IDS, temporary)
    return temporary


def open_record(config: TrackingConfig, *, folder: Path, run_name: str, verb: str, tags: Mapping[str, str]) -> Record:
    """The record of a verb that starts. One that did not finish before continues its record, on the same tracker.

    folder: that of the run of the pipeline. The tag `attempt` counts the starts. Raises OSError where nothing can be
    written there.
    """
    uri = chosen_uri(config)
    if uri and not config.uri:
        say(f"recording in MLFLOW_TRACKING_URI={uri}")
    record = unfinished(folder, verb, uri)
    if record is None:
        keys = [stored_ids(folder).get("key"), *(state["parent_key"] for _, state in _states(folder)), uuid.uuid4().hex]
        record = Record.new(folder, verb=verb, run=run_name, project=config.project, uri=without_secrets(uri),
                            parent_key=next(filter(None, keys)))
        continue_earlier(record, folder)
    record.put("status", {"status": "RUNNING", "time": milliseconds()})
    record.put("tags", {**tags, "verb": verb, "run": run_name, "attempt": str(record.begin())})
    return record


def continue_earlier(record: Record, folder: Path) -> None:
    """Continue the run of an unfinished verb that an earlier version kept in `tracking.json`."""
    known = stored_ids(folder)
    verb = record.state()["verb"]
    if (run_id := known.get("open", {}).pop(verb, None)) is not None:
        record.update(run_id=run_id)
        record.begin()
        atomic_write(folder / IDS, json.dumps(known, indent=1).encode())


def unfinished(folder: Path, verb: str, uri: str) -> Record | None:
    """The record of a verb that was started on this tracker, or on none yet, and did not finish."""
    return next((record for record, state in _states(folder) if state["verb"] == verb and not record.is_finished
                 and ("run_id" not in state or without_secrets(state["uri"]) == without_secrets(uri))), None)


def _states(folder: Path) -> list[tuple[Record, dict[str, Any]]]:
    """The records of a run with their facts, without damaged ones."""
    states = []
    for record in records(folder):
        try:
            states.append((record, record.state()))
        except BadInput as error:
            say(f"tracking: {error}")
    return states


def _is_writable(folder: Path) -> bool:
    return not folder.exists() or os.access(folder, os.W_OK)


class Tracker:
    """Writes parameters, numbers over steps, tags and files to a record. Never raises; `failures` lists lost calls.

    After the verb, `ids` has the uri, run_id and parent_id of its run of MLflow, the version of the model that it
    registered, what became of a promotion, and the page to open; None where MLflow does not have them yet.
    """

    def __init__(self, record: Record | None) -> None:
        self.record = record
        self.buffer: list[tuple[str, float, int, int]] = []     # name, value, milliseconds, step
        self.flushed = time.monotonic()
        self.failures: list[str] = []
        self.ids = dict(NO_IDS)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Record parameters; the first value stays. Long ones are cut; the whole recipe is stored as an artifact."""
        self._put("parameters", {name: str(value)[:LONGEST_PARAMETER] for name, value in values.items()})

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers at a step. They are buffered and written every few seconds."""
        now = milliseconds()
        self.buffer += [(name, float(value), now, step) for name, value in values.items()]
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered numbers. After a failure they wait for the next flush."""
        self.flushed = time.monotonic()
        if self.buffer and self._put("numbers", self.buffer):
            self.buffer = []

    def parent_numbers(self, values: Mapping[str, float]) -> None:
        """Record numbers of the whole run, such as the scores of an evaluation, with the units in their names."""
        now = milliseconds()
        self._put("parent_numbers", [(name, float(value), now, 0) for name, value in values.items()])

    def parent_tags(self, values: Mapping[str, str]) -> None:
        """Record facts about the whole run."""
        self._put("parent_tags", dict(values))

    def parent_file(self, path: Path) -> None:
        """Store a file among the artifacts of the whole run."""
        self._put("parent_files", {"folder": None}, files=path)

    def table(self, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store a table, such as that of the classes, where MLflow compares tables of runs. rows: not empty, all with
        the same columns."""
        table = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
        self._put("table", {"file": file}, contents={file: json.dumps(table).encode()})

    def dataset(self, name: str, *, digest: str, source: str, context: str) -> None:
        """Record data that the verb reads. context: what for, such as "training"."""
        self._put("dataset", {"name": name, "digest": digest, "source": source, "context": context})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record facts that become known only later, such as fingerprints."""
        self._put("tags", {name: str(value) for name, value in values.items()})

    def file(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or all files of a folder, as an artifact."""
        self._put("files", {"folder": folder}, files=path)

    def json(self, name: str, values: Any) -> None:
        """Store plain values as a JSON artifact."""
        content = json.dumps(values, indent=1, sort_keys=True, default=str).encode()
        self._put("files", {"folder": None}, contents={name: content})

    def register(self, name: str, artifact_folder: str, tags: Mapping[str, Any]) -> None:
        """Register the artifact folder as a new version of model `name`, aliased 'newest'."""
        self._put("register", {"name": name, "folder": artifact_folder, "tags": {k: str(v) for k, v in tags.items()}})

    def promote(self, model: Path, values: Mapping[str, Any]) -> None:
        """Ask for the alias `champion`. model: the folder of a finished model. values: as `registry.promote` takes."""
        self._put("promote", dict(values), files=model)

    def trial(self, name: str, *, parameters: Mapping[str, str], numbers: Mapping[str, float | None],
              error: str = "") -> None:
        """Record a trial of a sweep as a run below that of this verb. error: why it has no numbers."""
        self._put("trial", {
            "name": name, "time": milliseconds(), "error": error[:LONGEST_PARAMETER],
            "parameters": {key: value[:LONGEST_PARAMETER] for key, value in parameters.items()},
            "numbers": {key: value for key, value in numbers.items() if value is not None}})

    def finish(self, status: str = "FINISHED") -> None:
        """Write the last numbers and the status: FINISHED, FAILED or KILLED. A finished verb gets a new record next."""
        self.flush()
        self._put("status", {"status": status, "time": milliseconds()})
        if status == "FINISHED":
            self._try(self.record.finish)

    def _put(self, kind: str, values: Any, **options: Any) -> bool:
        """Add an entry to the record; returns whether it is there."""
        dropped = self._try(lambda: self.record.put(kind, values, **options))
        if dropped:
            self.failures.append(f"{dropped} numbers, the oldest of more than fit in the record, were dropped")
        return dropped is not None

    def _try(self, call):
        try:
            return call()
        except OSError as error:
            self.failures.append(str(error))
            return None


class NoTracker(Tracker):
    """Records nothing, since the folder of the run is read-only."""

    def __init__(self) -> None:
        super().__init__(None)

    def _put(self, kind: str, values: Any, **options: Any) -> bool:
        return True

    def _try(self, call):
        return None


class Recorded:
    """The record of a verb as a context that gives its `Tracker`, logs to MLflow on the way, and says what is left.

    sync: gives the command that logs what is left, for a folder of a run.
    """

    def __init__(self, config: TrackingConfig, *, folder: Path, run_name: str, verb: str, tags: Mapping[str, str],
                 sync: Callable[[Path], str]) -> None:
        self.config = config
        self.run_folder = folder
        self.run_name = run_name
        self.verb = verb
        self.tags = tags
        self.sync = sync

    def __enter__(self) -> Tracker:
        self.folder = record_folder(self.run_folder)
        record = open_record(self.config, folder=self.folder, run_name=self.run_name, verb=self.verb, tags=self.tags)
        self.delivery = Delivery(self.folder, chosen_uri(self.config))
        self.tracker = Tracker(record)
        return self.tracker

    def __exit__(self, kind, error, trace) -> None:
        was_stopped = kind is not None and not issubclass(kind, Exception)
        self.tracker.finish("FINISHED" if kind is None else "KILLED" if was_stopped else "FAILED")
        self.delivery.finish(STOPPED_SECONDS if was_stopped else patience(self.config, self.folder))
        self.tracker.ids |= self.delivery.ids(self.tracker.record)
        if self.tracker.failures:
            say(f"tracking: {len(self.tracker.failures)} things could not be kept for MLflow, the last because: "
                f"{self.tracker.failures[-1]}")
        _say_what_is_left(self.delivery, self.sync)
        if self.folder != self.run_folder and not waiting(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)


def catch_up(config: TrackingConfig, folder: Path, sync: Callable[[Path], str]) -> None:
    """Log what earlier verbs of a run left, and say what is left then; nothing where the run is read-only.

    Arguments: those of `Recorded`.
    """
    if _is_writable(folder) and waiting(folder):
        delivery = Delivery(folder, chosen_uri(config))
        delivery.finish(patience(config, folder))
        _say_what_is_left(delivery, sync)


def _say_what_is_left(delivery: Delivery, sync: Callable[[Path], str]) -> None:
    folder = delivery.run_folder
    if left := waiting(folder):
        why = delivery.reasons or ["another process logs for this run"]
        say(f"tracking: {left} things are not logged in MLflow ({why[0]}). They are kept in {folder / FOLDER}; log "
            f"them by {sync(folder)}")


def patience(config: TrackingConfig, folder: Path) -> float:
    """Seconds that a verb waits at its end: longer where large files, such as weights, wait to be sent."""
    uri = chosen_uri(config)
    least = OWN_SECONDS if not uri or sqlite_file(uri) else LAST_SECONDS
    return least + kept_bytes(folder / FOLDER) / BYTES_PER_SECOND
