"""One verb at a time in a folder: a second one names the first and waits, and takes over from a dead one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import at_work
from pipeline.at_work import NOTE, alone_in
from pipeline.files import partial_path
from tests.storm.forked import forked

ROOT = Path(__file__).parents[2]
NOBODY = 65534      # the user of this number, who owns nothing
WORK = """
import pathlib, sys, time
from pipeline.at_work import alone_in
with alone_in(pathlib.Path(sys.argv[1]), sys.argv[2]):
    log = pathlib.Path(sys.argv[1]) / "log"
    with log.open("a") as file:
        print("in", sys.argv[2], file=file, flush=True)
        time.sleep(float(sys.argv[3]))
        print("out", sys.argv[2], file=file, flush=True)
"""


def start(folder: Path, verb: str, seconds: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WORK, str(folder), verb, str(seconds)], cwd=ROOT, text=True,
                            stderr=subprocess.PIPE)


def wait_for(path: Path, text: str = "") -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def often(monkeypatch) -> None:
    monkeypatch.setattr(at_work, "LOOK_EVERY", 0.05)


def test_processes_that_start_together_work_one_after_the_other(tmp_path):
    folder = tmp_path / "a" / "b"
    started = {verb: start(folder, verb, 0.5) for verb in ("first", "second", "third")}
    said = "".join(process.communicate(timeout=60)[1] for process in started.values())
    lines = (folder / "log").read_text().split("\n")[:-1]
    assert [line.split()[0] for line in lines] == ["in", "out"] * 3
    assert all(lines[at].split()[1] == lines[at + 1].split()[1] for at in (0, 2, 4))
    assert re.search(rf"waiting: (first|second|third) is at work in {folder} \(host \S+, process \d+, since "
                     r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\)", said)
    assert "Traceback" not in said
    assert [path.name for path in folder.iterdir()] == ["log"]


def test_a_killed_one_is_named_and_its_partial_files_are_deleted(tmp_path, caplog):
    killed = start(tmp_path, "jobs.first", 60)
    wait_for(tmp_path / "log", "in")
    mine = partial_path(tmp_path / "deep" / "x")
    theirs = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{killed.pid}-"))
    mine.parent.mkdir()
    for path in (mine, theirs):
        path.write_bytes(b"half")
    killed.send_signal(signal.SIGKILL)      # nobody waits for it yet
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    with alone_in(tmp_path, "jobs.second"):
        assert json.loads((tmp_path / NOTE).read_text())["process"] == os.getpid()
        assert mine.exists()
        assert not theirs.exists()
    killed.communicate()
    assert not (tmp_path / NOTE).exists()
    assert f"jobs.first was at work in {tmp_path}" in caplog.text
    assert f"process {killed.pid}" in caplog.text


def note(folder: Path, **fields) -> Path:
    """The note of another verb."""
    values = {"verb": "jobs.predict", "host": "elsewhere", "process": 7, "start": "1", "machine": "0" * 8,
              "since": "2026-01-01 00:00:00", "token": "t"}
    (folder / NOTE).write_text(json.dumps(values | fields))
    return folder / NOTE


def test_a_verb_of_another_machine_is_waited_for_while_its_note_is_touched(tmp_path, monkeypatch, caplog):
    path = note(tmp_path)
    looks = []
    monkeypatch.setattr(time, "sleep", lambda _: looks.append(1) or (len(looks) == 3 and path.unlink()))
    with alone_in(tmp_path, "jobs.evaluate"):
        pass
    assert len(looks) == 3
    assert caplog.text.count("waiting: jobs.predict is at work") == 1
    assert "(host elsewhere, process 7, since 2026-01-01 00:00:00)" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_note_of_another_machine_or_a_torn_one_is_taken_over_when_it_is_silent(tmp_path, content):
    path = note(tmp_path)
    if content is not None:
        path.write_bytes(content)
    os.utime(path, (time.time() - at_work.SILENT - 5,) * 2)
    with alone_in(tmp_path, "jobs.evaluate"):
        assert json.loads(path.read_text())["verb"] == "jobs.evaluate"
    assert list(tmp_path.iterdir()) == []


def test_a_process_number_that_was_given_again_is_not_taken_for_the_verb(tmp_path):
    path = note(tmp_path, machine=at_work.machine(), process=os.getpid(), start="1")
    with alone_in(tmp_path, "jobs.evaluate"):
        assert json.loads(path.read_text())["verb"] == "jobs.evaluate"


def test_a_note_is_touched_while_the_verb_works(tmp_path, monkeypatch):
    monkeypatch.setattr(at_work, "TOUCH_EVERY", 0.02)
    with alone_in(tmp_path, "jobs.evaluate"):
        os.utime(tmp_path / NOTE, (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / NOTE).stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_note_of_another_verb_is_left_alone_and_an_empty_folder_is_removed(tmp_path):
    with pytest.raises(ValueError, match="failed"), alone_in(tmp_path / "a" / "b", "jobs.evaluate"):
        raise ValueError("failed")
    assert list(tmp_path.iterdir()) == []
    with alone_in(tmp_path, "jobs.evaluate"):
        path = note(tmp_path)       # as if this process had been stopped for long
    assert json.loads(path.read_text())["verb"] == "jobs.predict"


def test_a_folder_that_cannot_be_written_to_is_nobodys(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)

    def work() -> int:
        os.chdir(folder)        # first, since another user may not look into the folders above
        if os.getuid() == 0:    # who may write everywhere
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        with alone_in(Path(), "jobs.evaluate"):
            return int(Path(NOTE).exists())

    assert forked(work, tmp_path / "log").code == 0
    assert list(folder.iterdir()) == []
