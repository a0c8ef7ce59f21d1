"""The storm's own tools: kills happen where they are planned, disks fill up, trackers fail, and every loss is seen."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pipeline.files import atomic_write
from tests.storm.forked import CRASH, KILLED, STOPPING, Act, forked
from tests.storm.kill_points import count_changes, kill_at_change, kill_at_size, quota_from_change
from tests.storm.small_disk import can_mount, disk_of, used
from tests.storm.small_run import contents
from tests.storm.trials import Tally, Trial

TRIAL = Trial(kind="kill", verb="evaluate", seed=3)


def write_two(folder: Path) -> int:
    for name in ("a", "b"):
        atomic_write(folder / name, b"x" * 1000)
    return 0


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def test_a_forked_call_ends_with_its_code_and_all_it_printed(tmp_path):
    ended = forked(lambda: print("hello") or 3, tmp_path / "log")
    assert (ended.code, ended.said, ended.left, ended.has_traceback) == (3, "hello\n", False, False)


def test_an_error_that_nobody_expects_is_seen(tmp_path):
    ended = forked(lambda: 1 // 0, tmp_path / "log")
    assert (ended.code, ended.has_traceback) == (CRASH, True)
    assert "ZeroDivisionError" in ended.said


def test_a_call_is_killed_when_its_time_is_over_and_one_that_hangs_is_named(tmp_path):
    assert forked(lambda: time.sleep(60), tmp_path / "log", kill_after=0.2).code == KILLED
    with pytest.raises(TimeoutError, match="did not end within 0 s"):
        forked(lambda: time.sleep(60), tmp_path / "log", longest=0.2)


def test_processes_that_outlive_a_call_are_seen_and_ended(tmp_path):
    def leave_one() -> int:
        (tmp_path / "pid").write_text(str(subprocess.Popen(["sleep", "60"]).pid))
        return 0

    assert forked(leave_one, tmp_path / "log").left
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_change_is_a_point_at_which_a_kill_leaves_whole_files(tmp_path, folder):
    def counted() -> int:
        count_changes(folder, tmp_path / "count")
        return write_two(folder)

    assert forked(counted, tmp_path / "log").code == 0
    changes = int((tmp_path / "count").read_text())
    assert changes == 2 * 4     # to open, to force to disk, to rename, to force the folder to disk
    for change in range(1, changes + 1):
        for path in folder.iterdir():
            path.unlink()
        assert forked(lambda n=change: kill_at_change(folder, n) or write_two(folder), tmp_path / "log").code == KILLED
        whole = {name for name in names(folder) if len(name) == 1}
        assert whole == set("ab"[:change // 4])
        assert all((folder / name).stat().st_size == 1000 for name in whole)


def test_from_a_change_on_a_quota_is_used_up_and_what_was_whole_stays(tmp_path, folder):
    def write() -> int:
        quota_from_change(folder, 5)
        try:
            return write_two(folder)
        except OSError as error:
            print(error, *error.__notes__)
            return error.errno

    ended = forked(write, tmp_path / "log")
    assert ended.code == errno.EDQUOT
    assert f"[Errno {errno.EDQUOT}] Disk quota exceeded: '{folder / 'b'}'" in ended.said
    assert "quota of this user is used up. Make room" in ended.said
    assert names(folder) == {"a"}


def test_signals_wait_until_a_call_listens(tmp_path):
    def stop() -> int:
        time.sleep(0.5)
        signal.signal(signal.SIGHUP, lambda *_: os._exit(5))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        return time.sleep(60)

    ended = forked(stop, tmp_path / "log", acts=[Act(0.1, lambda child: os.kill(child, signal.SIGHUP))])
    assert (ended.code, ended.seconds < 30) == (5, True)


def test_a_write_beyond_a_size_kills(tmp_path, folder):
    assert forked(lambda: kill_at_size(1000) or write_two(folder), tmp_path / "log").code == 0
    assert forked(lambda: kill_at_size(999) or write_two(folder), tmp_path / "log").code < 0


def test_a_file_cannot_grow_beyond_the_disk(tmp_path):
    with disk_of(100), pytest.raises(OSError, match="large") as raised:
        (tmp_path / "file").write_bytes(bytes(101))
    assert raised.value.errno == errno.EFBIG
    (tmp_path / "file").write_bytes(bytes(101))


SMALL_DISK = """
import os, sys
from pathlib import Path
from tests.storm.small_disk import make_room, small_file_system
folder = Path(sys.argv[1])
with small_file_system(folder, 2**20):
    try:
        (folder / "a").write_bytes(bytes(2**21))
    except OSError as error:
        print(error.errno)
    make_room(folder, 2**23)
    (folder / "a").write_bytes(bytes(2**21))
print(list(folder.iterdir()))
"""


@pytest.mark.skipif(not can_mount(), reason="this machine lets nobody mount a file system of his own")
def test_a_small_file_system_is_full_until_room_is_made(folder):
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", SMALL_DISK, str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.split() == [str(errno.ENOSPC), "[]"]


def test_a_folder_takes_pages(folder):
    (folder / "a").write_bytes(bytes(5000))
    (folder / "b").write_bytes(b"")
    assert used(folder) == 3 * 4096


def test_files_of_a_run_are_compared_without_times_and_speeds(tmp_path):
    run = tmp_path / "run"
    (run / "scores").mkdir(parents=True)
    scores = run / "scores" / "scores.json"
    before = {}
    for speed, vpq in ((1.0, 70.0), (2.0, 70.0), (2.0, 71.0)):
        scores.write_text(json.dumps({"frames_per_second": speed, "vpq": vpq}))
        (run / "progress.jsonl").write_text(str(speed))
        before[speed, vpq] = contents(tmp_path)
    assert before[1.0, 70.0] == before[2.0, 70.0] != before[2.0, 71.0]
    scores.write_bytes(scores.read_bytes()[:-1])
    assert contents(tmp_path) != before[2.0, 71.0]


def test_the_tally_counts_by_kind_and_verb_and_names_what_repeats_a_failure():
    tally = Tally()
    tally.add(TRIAL, 4, "")
    tally.add(Trial(kind="kill", verb="evaluate", seed=4), 0, "lost a file")
    assert "| kill | evaluate | 1 / 2 | 4 |" in tally.table().splitlines()
    ((trial, problem),) = tally.failures
    assert (trial.command, problem) == (
        "python -m tests.storm --kind kill --verb evaluate --seed 4 --trials 1", "lost a file")
    assert TRIAL.numbers.random() == TRIAL.numbers.random()


def answer(address: str) -> int:
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default")
    with urllib.request.urlopen(request, timeout=100) as response:
        json.loads(response.read())
        return response.status


@pytest.mark.slow
def test_a_tracker_works_until_it_fails(tmp_path):
    from tests.storm.faulty_tracker import address_of, listening, tracker

    with listening() as listener:
        address = address_of(listener)
        with tracker(tmp_path, listener, fault="error 500", after=1):
            assert answer(address) == 200
            with pytest.raises(urllib.error.HTTPError, match="500"):
                answer(address)
        with tracker(tmp_path, listener, fault="nonsense"), pytest.raises(ValueError, match="Expecting"):
            answer(address)
        with tracker(tmp_path, listener):
            assert answer(address) == 200
    with listening() as listener, tracker(tmp_path, listener, fault="dies"):
        address = address_of(listener)
        listener.close()        # or requests would wait for the next tracker
        with pytest.raises(OSError):    # noqa: PT011 - any way to be gone
            answer(address)
