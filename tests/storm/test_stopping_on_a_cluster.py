"""Every verb stops on Ray: on its own cluster, which it takes along, on one that it joined, and as a submitted job.

A joined cluster stays, without workers of the verb.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from jobs import cache_queries, make_shards, train_stage_one, train_stage_two
from jobs.recipes.schema import Recipe
from tests.ray_head import Head, process_name, works
from tests.runs import here, tiny_run
from tests.storm.test_stopping import status
from tests.storm.verb_process import VerbProcess, verb_processes

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = ("cluster.workers=1", "stage_one.fit.steps=100000", "stage_one.fit.log_every=1",
            "stage_one.fit.checkpoint_every=2", "stage_two.fit.steps=100000", "stage_two.fit.log_every=1",
            "stage_two.fit.checkpoint_every=2")


@dataclass(frozen=True)
class Working:
    """What a verb makes, and what it prints while it works. ends: whether it soon ends when nobody stops it."""

    makes: str
    working: str
    ends: bool = True


VERBS = {"make_shards": Working("shards", "sharding 0/"),
         "train_stage_one": Working("stage_one", "step 00003/", ends=False),
         "cache_queries": Working("cache", "caching 0/"),
         "train_stage_two": Working("stage_two", "step 00003/", ends=False),
         "evaluate": Working("scores", "evaluating 0/")}


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    with closing(Head(tmp_path_factory.mktemp("head"))) as head:
        head.wait_until_ready()
        yield head


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Recipe:
    """A run with shards, models and query cache. Not to be changed."""
    recipe = here(tiny_run(tmp_path_factory.mktemp("runs") / "run"))
    for verb in (make_shards, train_stage_one, cache_queries, train_stage_two):
        verb.main(recipe)
    return recipe


@pytest.fixture(params=VERBS)
def verb(request) -> str:
    return request.param


@pytest.fixture
def run(finished, verb, tmp_path) -> Recipe:
    """The run as it is before a verb, without what that one makes."""
    folder = tmp_path / "run"
    shutil.copytree(finished.run_folder, folder)
    (folder / "tracking.json").unlink()
    shutil.rmtree(folder / VERBS[verb].makes, ignore_errors=True)
    return replace(finished, folder=str(folder))


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.2)


def test_a_verb_takes_its_own_cluster_along(run, verb, tmp_path):
    with verb_processes() as start:
        process: VerbProcess = start(tmp_path, verb, run, *SETTINGS)
        process.wait_for(VERBS[verb].working)
        wait_until(lambda: any(map(works, process.processes().values())), 60)
        process.stop(signal.SIGINT)


def test_a_joined_cluster_stays_without_the_workers_of_a_stopped_verb(head, run, verb, tmp_path):
    with verb_processes() as start:
        process: VerbProcess = start(tmp_path, verb, run, *SETTINGS, environment=head.joining)
        process.wait_for(VERBS[verb].working)
        wait_until(head.workers, 60)
        process.stop(signal.SIGINT)
    wait_until(lambda: not head.workers(), 30)
    assert head.process.poll() is None


@pytest.mark.parametrize("verb", ["train_stage_two"])
def test_a_training_goes_on_when_the_process_of_ray_that_leads_it_is_killed(head, run, verb, tmp_path):
    with verb_processes() as start:
        process: VerbProcess = start(tmp_path, verb, run, *SETTINGS, "cluster.workers=2", environment=head.joining)
        process.wait_for("step 00003/")
        for name in ("PlacementGroupCleaner", "TrainController"):     # the first would give back both processors
            below = psutil.Process(head.process.pid).children(recursive=True)
            (one,) = [process for process in below if name in process_name(process)]
            one.kill()
        process.wait_for("it is started again")
        process.wait_for("resumed at step ")
        process.stop(signal.SIGINT)


def test_a_job_that_is_stopped_leaves_no_process_and_ends_when_it_is_submitted_again(head, run, verb):
    settings = [word for setting in (f"folder={run.run_folder}", *SETTINGS) for word in ("--set", setting)]
    command = ("python", "-m", f"jobs.{verb}", "--recipe", "tiny", *settings)
    name = f"{verb}-stopped"
    assert head.submit(*command, follow=False, name=name)[0] == 0
    wait_until(lambda: VERBS[verb].working in head.job("logs", name)[1], 240)
    wait_until(head.workers, 60)
    assert drivers(run.run_folder)
    assert f"Job '{name}' was stopped" in head.job("stop", name)[1]
    wait_until(lambda: not head.workers() and not drivers(run.run_folder), 30)
    if verb == "train_stage_one":
        assert status(run, verb) == "KILLED"
    assert head.process.poll() is None
    if VERBS[verb].ends:
        code, said = head.submit(*command)
        assert code == 0, said[-2000:]


def drivers(folder: Path) -> list[int]:
    """The processes that were started with a folder among their words."""
    return [process.pid for process in psutil.process_iter(["cmdline"])
            if any(str(folder) in word for word in process.info["cmdline"] or ()) and process.status() != "zombie"]
