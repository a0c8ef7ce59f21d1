"""The record of a verb, while the verb adds to it and a thread sends it to MLflow."""

from __future__ import annotations

import threading

from jobs.training.record import Record, kept_bytes


def test_records_are_measured_while_their_entries_are_removed(tmp_path):
    """A verb ended with FileNotFoundError where MLflow took an entry while the verb looked how much is left."""
    record = Record.new(tmp_path, verb="evaluate", run="run", project="p", uri="", parent_key="k")
    file = tmp_path / "weights"
    file.write_bytes(bytes(1000))
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            record.put("files", {}, files=file)
            for entry in record.entries():
                record.remove(entry)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        sizes = {kept_bytes(tmp_path / "tracking") for _ in range(2000)}
    finally:
        ended.set()
        thread.join()
    assert max(sizes) > 0
    assert kept_bytes(tmp_path / "tracking") == 0
    record.put("files", {}, files=file)
    assert kept_bytes(tmp_path / "tracking") == 1000
    assert kept_bytes(tmp_path / "tracking", shared=False) == 0      # the file lies elsewhere too
