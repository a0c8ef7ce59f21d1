"""Ctrl-C and SIGTERM at any moment: one line, exit code 130 (143), no process left, and the command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs import make_shards
from jobs.recipes.schema import Recipe
from jobs.stopping import SAME_SECONDS
from jobs.training.delivery import log_waiting
from tests.runs import here, tiny_run
from tests.storm.verb_process import VerbProcess, verb_processes


@pytest.fixture
def start() -> Iterator[Callable[..., VerbProcess]]:
    with verb_processes() as start:
        yield start


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> Recipe:
    """A run with its shards. Not to be changed."""
    recipe = here(tiny_run(tmp_path_factory.mktemp("runs") / "run"))
    make_shards.main(recipe)
    return recipe


@pytest.fixture
def run(sharded, tmp_path) -> Recipe:
    (tmp_path / "runs").mkdir()
    subprocess.run(["cp", "-r", sharded.run_folder, tmp_path / "runs" / "run"], check=True)
    (tmp_path / "runs" / "run" / "tracking.json").unlink()
    return replace(sharded, folder=str(tmp_path / "runs" / "run"))


def status(recipe: Recipe, verb: str) -> str:
    """The status of a verb's run in MLflow, once all that a stopped verb may have left is logged."""
    assert log_waiting(recipe.run_folder, "", {}) == []
    client = MlflowClient(f"sqlite:///{recipe.run_folder.parent / 'tracking.db'}")
    experiment = client.get_experiment_by_name("maxtron-on-ray").experiment_id
    [run] = client.search_runs([experiment], f"tags.verb = '{verb}'")
    return run.info.status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_during_imports_nothing_was_begun(start, tmp_path, number):
    verb = start(tmp_path, "make_shards", tiny_run(tmp_path / "run"), "cluster.in_process=true")
    ends = time.monotonic() + 60
    while "torch" not in Path(f"/proc/{verb.process.pid}/maps").read_text() and time.monotonic() < ends:
        time.sleep(0.01)
    assert "nothing was done yet" in verb.stop(number)
    assert not (tmp_path / "run").exists()


def test_only_processes_that_a_verb_started_are_ended_with_it():
    stranger = subprocess.Popen(["sleep", "60"])
    code = ("import subprocess, sys; from jobs.stopping import descendants; "
            "child = subprocess.Popen(['sh', '-c', 'sleep 60 & wait'], start_new_session=True, stdout=-3); "
            "sys.stdin.readline(); print(*descendants())")
    verb = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    below = {int(number) for number in verb.communicate("go\n")[0].split()}
    try:
        names = {(Path("/proc") / str(process) / "comm").read_text().strip() for process in below}
        assert names == {"sh", "sleep"}
        assert stranger.pid not in below
    finally:
        for process in (*below, stranger.pid):
            os.kill(process, signal.SIGKILL)
        stranger.wait()


DEAF = """
import ctypes, os, sys
from jobs import stopping
stopping.UNWINDING_SECONDS = float(sys.argv[1])
stopping.handle_signals()
stopping.begin("kept; to go on: again")
if os.fork() == 0:
    os.kill(os.getpid(), 15)        # no signal of the verb
os.wait()
print("waiting", flush=True)
mutex = ctypes.create_string_buffer(64)
lock = ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
lock(mutex)         # nobody unlocks it, and no signal interrupts the waiting
"""


@pytest.mark.parametrize(("seconds", "signals"), [(2.0, 1), (60.0, 2)])
def test_a_signal_that_the_main_thread_cannot_handle_ends_the_verb(seconds, signals):
    verb = subprocess.Popen([sys.executable, "-c", DEAF, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)
    assert verb.stdout.readline() == "waiting\n"
    time.sleep(seconds + 1 if signals == 1 else 1)      # for the signal of the forked process to be without effect,
    # and for the main thread to reach the lock
    for _ in range(signals):
        assert verb.poll() is None
        verb.send_signal(signal.SIGTERM)
        time.sleep(SAME_SECONDS + 0.5)
    assert verb.wait(timeout=20) == 143
    assert verb.stderr.read() == "\nstopped by SIGTERM: kept; to go on: again\n"


LONG = ("stage_one.fit.steps=100000", "stage_one.fit.log_every=1", "stage_one.fit.checkpoint_every=2",
        "stage_one.input.workers=2")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("alone", [True, False], ids=["process", "group"])
def test_a_training_with_loader_processes_stops_and_goes_on(start, run, tmp_path, number, alone):
    verb = start(tmp_path, "train_stage_one", run, "cluster.in_process=true", *LONG)
    verb.wait_for("step 00003/")
    assert len(verb.processes()) >= 3
    line = verb.stop(number, alone=alone)
    assert f"kept in {run.run_folder}; to go on: python -m jobs.train_stage_one --recipe tiny --set folder=" in line
    assert status(run, "train_stage_one") == "KILLED"
    again = start(tmp_path, "train_stage_one", run, "cluster.in_process=true", *LONG)
    again.wait_for("resumed at step ")
    again.stop(signal.SIGINT)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(start, run, tmp_path):
    verb = start(tmp_path, "train_stage_one", run, "cluster.in_process=true", *LONG)
    verb.wait_for("step 00001/")
    os.kill(verb.process.pid, signal.SIGINT)
    while "stopped by" not in verb.said() and verb.process.poll() is None:
        time.sleep(0.01)
    time.sleep(SAME_SECONDS + 0.1)      # an earlier one counts as passed on by a wrapper
    began = time.monotonic()
    if verb.process.poll() is None:
        os.kill(verb.process.pid, signal.SIGINT)
    assert verb.process.wait(timeout=20) == 130
    assert time.monotonic() - began < 5
    assert verb.processes() == {}


@pytest.mark.slow
def test_a_closed_terminal_stops_a_demo_in_the_middle_of_a_verb(start, tmp_path):
    demo = start(tmp_path, "demo", here(tiny_run(tmp_path / "run")), "cluster.in_process=true", *LONG)
    demo.wait_for("=== train_stage_one")
    demo.wait_for("step 00001/")
    assert "SIGHUP: what jobs.demo has finished is kept in" in demo.stop(signal.SIGHUP)


@pytest.mark.slow
def test_nohup_keeps_a_verb_from_a_closed_terminal(start, run, tmp_path):
    verb = start(tmp_path, "train_stage_one", run, "cluster.in_process=true", *LONG, ignored=signal.SIGHUP)
    verb.wait_for("step 00001/")
    os.kill(verb.process.pid, signal.SIGHUP)
    verb.wait_for("step 00003/")
    verb.stop(signal.SIGTERM)


RAY = ("cluster.workers=1", *LONG[:3])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["raylet", "step 00003/"], ids=["start of Ray", "training"])
@pytest.mark.parametrize("alone", [True, False], ids=["process", "group"])
def test_a_verb_on_its_own_cluster_takes_the_cluster_along(start, run, tmp_path, moment, alone):
    verb = start(tmp_path, "train_stage_one", run, *RAY)
    if moment == "raylet":
        ends = time.monotonic() + 240
        while not any("raylet/raylet" in command for command in verb.processes().values()) and time.monotonic() < ends:
            time.sleep(0.05)
    else:
        verb.wait_for(moment)
    assert len(verb.processes()) > 3
    verb.stop(signal.SIGINT, alone=alone)
