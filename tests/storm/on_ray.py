"""Verbs whose work is done on Ray: they, their workers and their own cluster are killed, or they are told to stop."""

from __future__ import annotations

import os
import random
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from jobs.cluster import SUBMITTED_JOB
from jobs.recipes.schema import Recipe
from tests.storm.forked import STOPPING, Act, Ended
from tests.storm.kills import ALL_ENDS, refuse_loss, start
from tests.storm.small_run import ORDER, SmallRun
from tests.storm.stops import listen, refuse_untidy, send
from tests.storm.trials import Damage, Kind, refuse_unless

MARK = "STORM_MARK"         # a variable that all processes of a verb and of its own cluster inherit
OWN_SECONDS = 25.0          # of a verb on a cluster of its own, most of them for starting it
JOINED_SECONDS = 14.0       # of a verb on a cluster that is there
LEAVING_SECONDS = 20.0      # for a cluster to end the workers of a verb that is gone
MOST_KILLS = 6              # of the verb in one trial on a cluster that is there
MOST_WORKERS = 2            # that are killed while a verb runs; its training survives no more (cluster.max_failures)


def meet_kills(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Two kills of the process of a verb; the cluster that it started ends with it."""
    start(run, verb, numbers)
    kills = 0
    for _ in range(2):
        ended = run.run(verb, kill_after=numbers.uniform(5, OWN_SECONDS), change=on_ray)
        if ended.code == 0:
            break
        refuse_unless(ended.code in ALL_ENDS, f"after {kills} kills the verb fails", ended)
        kills += 1
    refuse_loss(run, verb, run.run(verb, change=on_ray), kills, in_process=False)
    return kills


def meet_joined_kills(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Kills of a verb or of its workers, on a cluster that stays."""
    start(run, verb, numbers)
    kills = 0
    for _ in range(numbers.randint(3, MOST_KILLS)):
        if numbers.random() < 0.5:
            ended = joined(run, verb, kill_after=numbers.uniform(1, JOINED_SECONDS))
            if ended.code != 0:
                refuse_unless(ended.code in ALL_ENDS, f"after {kills} kills the verb fails", ended)
                kills += 1
                continue
        else:
            killed: list[bool] = []
            kill = lambda _, killed=killed: killed.append(kill_worker(run, numbers))        # noqa: E731
            acts = [Act(numbers.uniform(1, JOINED_SECONDS), kill) for _ in range(MOST_WORKERS)]
            ended = joined(run, verb, acts=acts)
            kills += sum(killed)
        refuse_loss(run, verb, ended, kills, in_process=False)
        start(run, verb, numbers)
    refuse_loss(run, verb, joined(run, verb), kills, in_process=False)
    return kills


def meet_stops(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """A signal on a cluster of its own, and one on a cluster that the verb has joined. Raises Damage."""
    start(run, verb, numbers)
    stops = 0
    for seconds, is_own in ((OWN_SECONDS, True), (JOINED_SECONDS, False)):
        number = numbers.choice(STOPPING)
        acts = [Act(numbers.uniform(0, seconds), partial(send, number))]
        mark = uuid.uuid4().hex
        call = partial(run.run, change=on_ray) if is_own else partial(joined, run)
        ended = call(verb, acts=acts, before=partial(listen_marked, mark))
        if ended.code != 0:
            refuse_untidy(ended, number)
            refuse_left_behind(run, mark)
            stops += 1
    refuse_loss(run, verb, joined(run, verb), stops, in_process=False)
    return stops


def joined(run: SmallRun, verb: str, *, before=lambda: None, **settings: Any) -> Ended:
    """Run a verb on the cluster of the storm, as a submitted job does."""
    variables = run.head.joining | {SUBMITTED_JOB: "{}"}
    return run.run(verb, before=lambda: os.environ.update(variables) or before(), change=on_ray, **settings)


def kill_worker(run: SmallRun, numbers: random.Random) -> bool:
    """Kill an actor or a task of the cluster; whether there was one."""
    workers = sorted(run.head.workers(), key=lambda process: process.pid)
    with suppress(psutil.Error):
        if workers:
            numbers.choice(workers).kill()
            return True
    return False


def listen_marked(mark: str) -> None:
    """Handle signals as a verb does, and mark the processes that this one starts."""
    os.environ[MARK] = mark
    listen()


def refuse_left_behind(run: SmallRun, mark: str) -> None:
    """Raise Damage where processes outlive a verb, or where the cluster does not that it joined."""
    ends = time.monotonic() + LEAVING_SECONDS
    while time.monotonic() < ends and (marked(mark) or run.head.workers()):
        time.sleep(0.2)
    if left := [*marked(mark), *run.head.workers()]:
        raise Damage(f"it left processes behind: {left}")
    if run.head.process.poll() is not None:
        raise Damage("the cluster that it joined is gone")


def marked(mark: str) -> list[int]:
    """The processes with a mark."""
    processes = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in (path / "environ").read_bytes():
                processes.append(int(path.name))
    return processes


def on_ray(recipe: Recipe) -> Recipe:
    """The same recipe on a cluster. One worker makes the weights that a training without Ray makes."""
    return replace(recipe, cluster=replace(recipe.cluster, in_process=False, workers=1))


KILLS_ON_RAY = Kind(name="kill-ray", verbs=ORDER, meet=meet_kills)
KILLS_JOINED = Kind(name="kill-joined", verbs=ORDER, meet=meet_joined_kills)
STOPS_ON_RAY = Kind(name="stop-ray", verbs=ORDER, meet=meet_stops)
