"""Two verbs that start together in one folder: one names the other and waits, and the bytes are those of one alone.

The one at work is also killed in the middle: the other one then completes what it began.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import cache_queries, evaluate, make_shards, train_stage_one, train_stage_two
from pipeline.files import sha256_of
from tests.runs import here, tiny_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Verb -> the folder that it fills, and the files in it that depend on nothing but the recipe.
WRITES = {"make_shards": ("shards", ("*.tar", "*.json", "*.jsonl", "*.parquet")),
          "train_stage_one": ("stage_one", ("model/*.safetensors",)),
          "cache_queries": ("cache", ("*.parquet", "*.json")),
          "train_stage_two": ("stage_two", ("model/*.safetensors",)),
          "evaluate": ("scores", ("*.png", "pred.json", "classes.json"))}
# The first at work goes on once the test has seen that the other one waits.
CHILD = """
import pathlib, runpy, sys, time
from pipeline import at_work
sweep, go = at_work.sweep_partials, pathlib.Path(sys.argv.pop(1))
def later(folder):
    while not go.exists():
        time.sleep(0.02)
    return sweep(folder)
at_work.sweep_partials = later
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A run of all verbs, one after the other."""
    recipe = here(tiny_run(tmp_path_factory.mktemp("undisturbed") / "run"))
    for verb in (make_shards, train_stage_one, cache_queries, train_stage_two, evaluate):
        verb.main(recipe)
    return recipe.run_folder


def content(run: Path, verb: str) -> dict[str, str]:
    """The files that a verb writes, with their digests."""
    folder, patterns = WRITES[verb]
    return {str(path.relative_to(run)): sha256_of(path) for pattern in patterns
            for path in sorted((run / folder).rglob(pattern))}


def start(run: Path, verb: str, go: Path, log: Path) -> subprocess.Popen:
    """The verb as a user starts it, without Ray."""
    command = [sys.executable, "-c", CHILD, str(go), f"jobs.{verb}", "--recipe", "tiny", "--set", f"folder={run}",
               "--set", "cluster.in_process=true", "--set", "inference.panoptic.thing=0.0", "--set",
               "inference.panoptic.stuff=0.0", "--set", "inference.panoptic.pixel=0.05", "--set",
               "inference.panoptic.overlap=0.0"]
    with log.open("w") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
                                env={**os.environ, "OMP_NUM_THREADS": "1"})


def waiting(started: dict[Path, subprocess.Popen], count: int) -> set[Path]:
    """The logs of the processes that wait, once so many do."""
    deadline = time.monotonic() + 240
    while True:
        logs = {log for log in started if "waiting: " in log.read_text()}
        if len(logs) == count:
            return logs
        assert all(process.poll() is None for process in started.values()), [log.read_text() for log in started]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("verb", WRITES)
def test_two_verbs_that_start_together_leave_the_bytes_of_one(undisturbed, tmp_path, verb, killed):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    shutil.rmtree(run / WRITES[verb][0])
    started = {log: start(run, verb, tmp_path / "go", log) for log in (tmp_path / "first", tmp_path / "second")}
    try:
        (second,) = waiting(started, 1)
        (first,) = started.keys() - {second}
        (tmp_path / "go").touch()
        if killed:
            time.sleep(random.Random(verb).uniform(0, 2))
            started[first].send_signal(signal.SIGKILL)
        codes = {log: process.wait(timeout=240) for log, process in started.items()}
    finally:
        for process in started.values():
            process.kill()
    said = second.read_text()
    assert codes[second] == 0, said
    assert codes[first] == (-signal.SIGKILL if killed else 0) or first.read_text().rstrip().endswith("}")
    assert f"is at work in {run}" in said
    assert f"process {started[first].pid}, since 20" in said
    assert "Traceback" not in said + first.read_text()
    assert content(run, verb) == content(undisturbed, verb) != {}
    assert list(run.rglob("*.partial")) == []
