"""The status line, the JSON lines and the tracker get the same numbers."""

from __future__ import annotations

import json
import tempfile

import pytest

from jobs.training.loop import StepReport
from jobs.training.progress import Progress
from pipeline import store

REPORT = StepReport(step=50, losses={"mask": 2.0, "class": 0.5}, lr=1e-3, seconds=0.2, data_wait=0.1,
                    samples_per_second=10.0)


def test_one_line_shows_the_state_of_the_run_and_the_time_left(tmp_path, capsys):
    Progress(tmp_path / "run" / "progress.jsonl", steps=200, world=2)(REPORT)
    line = capsys.readouterr().out
    assert line.startswith("step 00050/200 (25.0%) | loss 2.500 | lr 1.0e-03 | 0.200 s/step | 20.0 clips/s | ")
    assert "data wait 10%" in line
    assert "left 0.5 min" in line


def test_the_tracker_gets_every_term_their_sum_and_the_rate_of_all_workers(tmp_path):
    numbers = Progress(tmp_path / "progress.jsonl", steps=200, world=2)(REPORT)
    assert numbers["loss"] == pytest.approx(2.5)
    assert (numbers["loss/mask"], numbers["loss/class"]) == (2.0, 0.5)
    assert (numbers["clips_per_second"], numbers["data_wait_share"]) == (20.0, 0.1)
    assert numbers["memory_gib"] > 0


def test_a_file_in_a_store_is_replaced_as_a_whole_with_each_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    uploads = []
    monkeypatch.setattr(store, "put", lambda partial, path: uploads.append(partial.read_bytes().count(b"\n")))
    path = store.working_path("s3://bucket/run/progress.jsonl")
    for kept in (1, 2):
        progress = Progress(path, steps=200, world=1)
        progress(REPORT)
        progress.keep()
        progress(REPORT)        # the process is killed before the next checkpoint
        assert path.read_bytes().count(b"\n") == kept
    assert uploads == [1, 2]


def test_a_resumed_run_appends_its_lines(tmp_path):
    for _ in range(2):
        Progress(tmp_path / "progress.jsonl", steps=200, world=1)(REPORT)
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 50]
    assert lines[0]["losses"] == {"mask": 2.0, "class": 0.5}
