"""Logs what waits in a run's records, in a thread of its own, so that no verb waits for a tracker.

The tracker may be slow, hang, fail or be locked: the verb goes on, and at its end it waits a bounded time. What is not
logged by then stays in the records. The next verb of the run logs it, or `python -m jobs.sync_tracking`.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

from jobs.console import say
from jobs.training.record import FOLDER, Record, logging_alone, records
from jobs.training.tracking import Log, mlflow_module, reason
from pipeline import store
from pipeline.printable import without_secrets

LOG_SECONDS = 2.0           # between looks for new entries
SILENT_SECONDS = 60.0       # after a failure, until the next attempt
BUSY_SECONDS = 0.2          # between looks whether another process still logs for the same run


def log_waiting(run_folder: Path, uri: str, logs: dict[Path, Log]) -> list[str]:
    """Log what the records of a run hold, oldest first; returns why the rest could not be logged.

    uri: of the tracker, for records that are in none yet. logs: those opened before, by the folder of their record. The
    caller alone may log for this run. A tracker that fails is not asked again for the records after.
    """
    with suppress(OSError):                 # a store that does not answer now is asked again at the next attempt
        store.look(run_folder / FOLDER)     # rank 0 may add entries on another machine
    reasons = []
    failed = set()
    for record in records(run_folder):
        try:
            state = record.state()
            place = without_secrets(state["uri"] if "run_id" in state else uri)
            if place not in failed and record.entries():
                logs[record.folder] = logs.get(record.folder) or Log(record, run_folder, uri)
                reasons += logs[record.folder].add_all()
        except Exception as error:      # MLflow's, SQLAlchemy's, those of the network and of any artifact store
            logs.pop(record.folder, None)
            failed.add(place)
            reasons.append(reason(error))
        if record.is_finished and not record.entries():
            record.discard()
    return reasons


class Delivery:
    """Logs the records of a run as long as a verb runs. `logs` and `reasons` tell how far it came."""

    def __init__(self, run_folder: Path, uri: str) -> None:
        self.run_folder = run_folder
        self.uri = uri
        self.logs: dict[Path, Log] = {}
        self.reasons: list[str] = []
        self._ending = threading.Event()
        mlflow_module()                 # two threads that import the same libraries at once may get in each other's way
        self._thread = threading.Thread(target=self._deliver, daemon=True, name="tracking")
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Wait until all is logged, for so many seconds at most, or until an attempt has failed."""
        self._ending.set()
        self._thread.join(seconds)
        if self._thread.is_alive() and not self.reasons:
            self.reasons = [f"it took more than {seconds:.0f} s"]

    def ids(self, record: Record) -> dict[str, str]:
        """Uri, run, parent run and page of a record; empty where MLflow does not have it yet."""
        log = self.logs.get(record.folder)
        return {} if log is None else {"uri": log.uri, "run_id": log.run_id, "parent_id": log.parent_id,
                                       "version": log.version, "promotion": log.promotion, "page": log.page}

    def _deliver(self) -> None:
        while True:
            is_last = self._ending.is_set()         # read first: entries that come during the attempt get another one
            if not self.run_folder.is_dir():        # the run was moved; its records wait there for `sync_tracking`
                return
            with logging_alone(self.run_folder, wait=False) as is_alone:
                if is_alone:
                    self._attempt()
            if is_last and is_alone:
                return
            if not is_alone:
                time.sleep(BUSY_SECONDS)
            else:
                self._ending.wait(SILENT_SECONDS if self.reasons else LOG_SECONDS)

    def _attempt(self) -> None:
        reasons = log_waiting(self.run_folder, self.uri, self.logs)
        if reasons and not self.reasons and not self._ending.is_set():
            say(f"tracking: the tracker {self.uri or 'beside the runs'} cannot be used: {reasons[0]}. The verb goes on "
                "and keeps what it logs. Start the tracker, or set tracking.uri to another one next time")
        self.reasons = reasons
