"""A cluster outlives the verbs that it works for: one that Ctrl-C stops, and a job that `ray job stop` ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from jobs import make_shards
from jobs.recipes.schema import Recipe
from tests.ray_head import Head
from tests.runs import here, tiny_run
from tests.storm.verb_process import VerbProcess, verb_processes

pytestmark = [pytest.mark.ray, pytest.mark.slow]

LONG = ("cluster.workers=1", "stage_one.fit.steps=100000", "stage_one.fit.log_every=1",
        "stage_one.fit.checkpoint_every=2")


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    with closing(Head(tmp_path_factory.mktemp("head"))) as head:
        head.wait_until_ready()
        yield head


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Recipe:
    """A run with its shards."""
    recipe = here(tiny_run(tmp_path_factory.mktemp("runs") / "run"))
    make_shards.main(recipe)
    return recipe


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.2)


def test_a_joined_cluster_stays_without_the_workers_of_a_stopped_verb(head, run, tmp_path):
    with verb_processes() as start:
        verb: VerbProcess = start(tmp_path, "train_stage_one", run, *LONG, environment=head.joining)
        verb.wait_for("step 00003/")
        assert head.workers()
        verb.stop(signal.SIGINT)
    wait_until(lambda: not head.workers(), 30)
    assert head.process.poll() is None


def test_a_job_that_is_stopped_leaves_no_process_and_goes_on_when_it_is_submitted_again(head, run):
    settings = [word for setting in (f"folder={run.run_folder}", *LONG) for word in ("--set", setting)]
    command = ("python", "-m", "jobs.train_stage_one", "--recipe", "tiny", *settings)
    for name, text in (("first", "| loss "), ("second", "resumed at step ")):
        assert head.submit(*command, follow=False, name=name)[0] == 0
        wait_until(lambda name=name, text=text: text in head.job("logs", name)[1], 240)
        assert drivers(run.run_folder)
        assert f"Job '{name}' was stopped" in head.job("stop", name)[1]
        wait_until(lambda: not head.workers() and not drivers(run.run_folder), 30)
    assert head.process.poll() is None
    assert list(run.run_folder.rglob("state.json"))


def drivers(folder: Path) -> list[int]:
    """The processes that were started with a folder among their words."""
    return [process.pid for process in psutil.process_iter(["cmdline"])
            if any(str(folder) in word for word in process.info["cmdline"] or ()) and process.status() != "zombie"]
