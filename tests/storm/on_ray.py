"""Verbs whose work is done on Ray: they, their workers and their own cluster are killed, or they are told to stop."""

from __future__ import annotations

import itertools
import os
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from jobs.cluster import SUBMITTED_JOB
from jobs.recipes.schema import Recipe
from tests.ray_head import process_name, works
from tests.storm.forked import STOPPING, Act, Ended
from tests.storm.kills import ALL_ENDS, refuse_loss, start
from tests.storm.small_run import ORDER, SmallRun
from tests.storm.stops import listen, refuse_untidy, send
from tests.storm.trials import Damage, Kind, refuse_crash, refuse_unless

MARK = "STORM_MARK"         # a variable that all processes of a verb and of its own cluster inherit
OWN_SECONDS = 25.0          # of a verb on a cluster of its own, most of them for starting it, until one was faster
JOINED_SECONDS = 14.0       # of a verb on a cluster that is there
LEAVING_SECONDS = 20.0      # for a cluster to end the workers of a verb that is gone
MOST_KILLS = 9              # of the verb in one trial
MOST_WORKERS = 8            # that are killed while a verb runs
PAUSE = (0.5, 6.0)          # seconds between two kills of workers; a new one starts within them
STRIKES = 30                # at most, with those that meet no worker
VERB = "verb"               # what is killed: the verb and all that it has started
WORKER = "worker"           # an actor or a task
RAY = ("raylet", "gcs_server")      # Ray's own processes, which a verb does not outlive
TOLD = (1, 2)               # exit codes of a verb that ends since its cluster is gone


def meet_kills(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Kills of a verb with the cluster that it started, of its workers, or of Ray's own processes in that cluster."""
    start(run, verb, numbers)
    kills = 0
    for _ in range(numbers.randint(3, MOST_KILLS)):
        victim = numbers.choice((VERB, VERB, WORKER, *RAY))
        if victim == VERB:
            ended = own(run, verb, kill_after=moment(verb, numbers, joins=False))
            kills += ended.code in ALL_ENDS
        else:
            ended, killed = with_kills(own, run, verb, victim, numbers)
            kills += killed
        if ended.code == 0:
            refuse_loss(run, verb, ended, kills, in_process=False)
            start(run, verb, numbers)
        else:
            refuse_crash(run, verb, ended, in_process=False)
            ends = ALL_ENDS if victim == VERB else TOLD if victim in RAY else ()
            refuse_unless(ended.code in ends, f"after {kills} kills, the last one of the {victim}, it fails", ended)
    refuse_loss(run, verb, own(run, verb), kills, in_process=False)
    return kills


def meet_joined_kills(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Kills of a verb or of its workers, on a cluster that stays."""
    start(run, verb, numbers)
    kills = 0
    for _ in range(numbers.randint(3, MOST_KILLS)):
        if numbers.random() < 0.5:
            ended = joined(run, verb, kill_after=moment(verb, numbers, joins=True))
            if ended.code != 0:
                refuse_unless(ended.code in ALL_ENDS, f"after {kills} kills the verb fails", ended)
                kills += 1
                continue
        else:
            ended, killed = with_kills(joined, run, verb, WORKER, numbers)
            kills += killed
        refuse_loss(run, verb, ended, kills, in_process=False)
        start(run, verb, numbers)
    refuse_loss(run, verb, joined(run, verb), kills, in_process=False)
    return kills


def meet_stops(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """A signal on a cluster of its own, and one on a cluster that the verb has joined. Raises Damage."""
    start(run, verb, numbers)
    stops = 0
    for is_own in (True, False):
        number = numbers.choice(STOPPING)
        acts = [Act(moment(verb, numbers, joins=not is_own), partial(send, number))]
        mark = uuid.uuid4().hex
        ended = (own if is_own else joined)(run, verb, acts=acts, before=partial(listen_marked, mark))
        if ended.code != 0:
            refuse_untidy(ended, number)
            refuse_left_behind(run, mark)
            stops += 1
    refuse_loss(run, verb, joined(run, verb), stops, in_process=False)
    return stops


def own(run: SmallRun, verb: str, **settings: Any) -> Ended:
    """Run a verb on a cluster of its own."""
    return noted(verb, run.run(verb, change=on_ray, **settings), joins=False)


def joined(run: SmallRun, verb: str, *, before=lambda: None, **settings: Any) -> Ended:
    """Run a verb on the cluster of the storm, as a submitted job does."""
    variables = run.head.joining | {SUBMITTED_JOB: "{}"}
    ended = run.run(verb, before=lambda: os.environ.update(variables) or before(), change=on_ray, **settings)
    return noted(verb, ended, joins=True)


_seconds: dict[tuple[str, bool], float] = {}        # (verb, joins) -> the least that it took to its end


def noted(verb: str, ended: Ended, *, joins: bool) -> Ended:
    """Remember how long a verb takes, so that the next one is hit before its end."""
    if ended.code == 0:
        _seconds[verb, joins] = min(ended.seconds, _seconds.get((verb, joins), ended.seconds))
    return ended


def moment(verb: str, numbers: random.Random, *, joins: bool) -> float:
    """Seconds after the start of a verb, mostly while it works."""
    longest = _seconds.get((verb, joins), JOINED_SECONDS if joins else OWN_SECONDS)
    return numbers.uniform(0.1 if numbers.random() < 0.2 else 0.4, 1.0) * longest


def with_kills(call: Callable[..., Ended], run: SmallRun, verb: str, victim: str, numbers: random.Random
               ) -> tuple[Ended, int]:
    """Run a verb while processes of its cluster are killed: how it ended, and how many were killed."""
    joins = call is joined
    most = numbers.randint(2, MOST_WORKERS) if victim == WORKER else 1
    killed = 0

    def strike(process: int) -> None:
        nonlocal killed
        if killed < most:
            killed += kill_one(run.head.process.pid if joins else process, victim, numbers)

    first = moment(verb, numbers, joins=joins) * (0.5 if victim == WORKER else 1.0)
    pauses = [numbers.uniform(*PAUSE) for _ in range(STRIKES)]
    acts = [Act(first + pause, strike) for pause in itertools.accumulate(pauses, initial=0.0)]
    return call(run, verb, acts=acts, before=listen), killed


def kill_one(ancestor: int, victim: str, numbers: random.Random) -> bool:
    """Kill a worker, or one of Ray's processes, among those that a process has started; whether there was one."""
    with suppress(psutil.Error):
        names = {process: process_name(process) for process in psutil.Process(ancestor).children(recursive=True)}
        wanted = [process for process, name in names.items()
                  if (works(name) if victim == WORKER else name.split(" ")[0].endswith(f"/{victim}"))]
        if wanted:
            numbers.choice(sorted(wanted, key=lambda process: process.pid)).kill()
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
    cluster = replace(recipe.cluster, in_process=False, workers=1, max_failures=MOST_WORKERS)
    return replace(recipe, cluster=cluster)


KILLS_ON_RAY = Kind(name="kill-ray", verbs=ORDER, meet=meet_kills)
KILLS_JOINED = Kind(name="kill-joined", verbs=ORDER, meet=meet_joined_kills)
STOPS_ON_RAY = Kind(name="stop-ray", verbs=ORDER, meet=meet_stops)
