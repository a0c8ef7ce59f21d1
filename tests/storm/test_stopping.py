"""Ctrl-C and SIGTERM at any moment: one line, exit code 130 (143), no process left, and the command goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs import make_shards
from jobs.recipes.schema import Recipe
from jobs.stopping import SAME_SECONDS
from jobs.training.delivery import log_waiting
from tests.runs import here, tiny_run

MARK = "STORM_TEST"         # a variable that all processes of a verb inherit


STARTED: list[Verb] = []


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    for verb in STARTED:
        verb.process.kill()
        for process in verb.processes():
            os.kill(process, signal.SIGKILL)
    STARTED.clear()


class Verb:
    """A verb in a session of its own, as a terminal starts it."""

    def __init__(self, folder: Path, verb: str, recipe: Recipe, *settings: str) -> None:
        self.mark = uuid.uuid4().hex
        self.output = folder / "stdout"
        self.errors = folder / "stderr"
        options = [f"folder={recipe.run_folder}", *settings]
        command = [sys.executable, "-m", f"jobs.{verb}", "--recipe", "tiny",
                   *(word for option in options for word in ("--set", option))]
        with self.output.open("w") as output, self.errors.open("w") as errors:
            self.process = subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True,
                                            env=os.environ | {MARK: self.mark, "OMP_NUM_THREADS": "1"})
        STARTED.append(self)

    def wait_for(self, text: str, seconds: float = 240) -> None:
        ends = time.monotonic() + seconds
        while text not in self.output.read_text() + self.errors.read_text():
            assert self.process.poll() is None, self.errors.read_text()[-2000:]
            assert time.monotonic() < ends, f"{text!r} does not come: {self.output.read_text()[-500:]}"
            time.sleep(0.05)

    def processes(self) -> dict[int, str]:
        """Number -> command line of all processes that came from the verb and still run."""
        commands = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes():
                    commands[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return {process: command for process, command in commands.items() if command}

    def stop(self, number: int, *, alone: bool = False, seconds: float = 60) -> str:
        """Send a signal, to the whole group as a terminal does or to the process alone; returns the one line.

        Asserts that the exit code is right, that nothing else is printed and that no process is left.
        """
        before = self.errors.read_text(), self.output.read_text()
        (os.kill if alone else os.killpg)(self.process.pid, number)
        assert self.process.wait(timeout=seconds) == 128 + number
        printed = self.output.read_text().removeprefix(before[1]).splitlines()
        ordinary = r"\bstep \d+/\d+ |Reporting training result \d+: |^$"        # of a training, as the signal arrives
        assert [line for line in printed if not re.search(ordinary, line)] == []
        lines = self.errors.read_text().removeprefix(before[0]).strip().splitlines()
        stopped = [line for line in lines if line.startswith("stopped by ")]
        assert len(stopped) == 1
        assert [line for line in lines if line not in stopped and not re.match(r"\w+ing \d+/\d+ ", line)] == []
        ends = time.monotonic() + 5
        while self.processes() and time.monotonic() < ends:
            time.sleep(0.1)
        assert self.processes() == {}
        return stopped[0]


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
def test_during_imports_nothing_was_begun(tmp_path, number):
    verb = Verb(tmp_path, "make_shards", tiny_run(tmp_path / "run"), "cluster.in_process=true")
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


LONG = ("stage_one.fit.steps=100000", "stage_one.fit.log_every=1", "stage_one.fit.checkpoint_every=2",
        "stage_one.input.workers=2")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("alone", [True, False], ids=["process", "group"])
def test_a_training_with_loader_processes_stops_and_goes_on(run, tmp_path, number, alone):
    verb = Verb(tmp_path, "train_stage_one", run, "cluster.in_process=true", *LONG)
    verb.wait_for("step 00003/")
    assert len(verb.processes()) >= 3
    line = verb.stop(number, alone=alone)
    assert f"kept in {run.run_folder}; to go on: python -m jobs.train_stage_one --recipe tiny --set folder=" in line
    assert status(run, "train_stage_one") == "KILLED"
    again = Verb(tmp_path, "train_stage_one", run, "cluster.in_process=true", *LONG)
    again.wait_for("resumed at step ")
    again.stop(signal.SIGINT)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(run, tmp_path):
    verb = Verb(tmp_path, "train_stage_one", run, "cluster.in_process=true", *LONG)
    verb.wait_for("step 00001/")
    os.kill(verb.process.pid, signal.SIGINT)
    while "stopped by" not in verb.errors.read_text() and verb.process.poll() is None:
        time.sleep(0.01)
    time.sleep(SAME_SECONDS + 0.1)      # an earlier one counts as passed on by a wrapper
    began = time.monotonic()
    if verb.process.poll() is None:
        os.kill(verb.process.pid, signal.SIGINT)
    assert verb.process.wait(timeout=20) == 130
    assert time.monotonic() - began < 5
    assert verb.processes() == {}


RAY = ("cluster.workers=1", *LONG[:3])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("moment", ["raylet", "step 00003/"], ids=["start of Ray", "training"])
@pytest.mark.parametrize("alone", [True, False], ids=["process", "group"])
def test_a_verb_on_its_own_cluster_takes_the_cluster_along(run, tmp_path, moment, alone):
    verb = Verb(tmp_path, "train_stage_one", run, *RAY)
    if moment == "raylet":
        ends = time.monotonic() + 240
        while not any("raylet/raylet" in command for command in verb.processes().values()) and time.monotonic() < ends:
            time.sleep(0.05)
    else:
        verb.wait_for(moment)
    assert len(verb.processes()) > 3
    verb.stop(signal.SIGINT, alone=alone)
