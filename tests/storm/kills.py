"""A verb that is killed several times and started again ends with the bytes of one that was never disturbed."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from jobs.recipes.schema import Recipe
from tests.storm.forked import KILLED
from tests.storm.kill_points import kill_at_change, kill_at_size
from tests.storm.small_run import FINISHED, ORDER, SmallRun
from tests.storm.trials import Damage, Kind, refuse_crash, refuse_unless

MOST_KILLS = 5              # of one chain
SIZES = (2_000_000, 9_000_000)      # bytes; above the size of tracking.db, below that of the largest files of a run
RAY_SECONDS = 25            # of a verb on Ray, most of them for starting it
ALL_ENDS = (KILLED, -int(signal.SIGXFSZ))


def meet_kills(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """A chain of kills in one process: at any moment, before any change of a file, within a large write."""
    start(run, verb, numbers)
    return kill_chain(run, verb, numbers, lambda: kill_somewhere(run, verb, numbers))


def meet_kills_on_ray(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """A chain of two kills of the process of a verb whose work is done on Ray; its cluster ends with it."""
    start(run, verb, numbers)
    return kill_chain(run, verb, numbers, lambda: {"kill_after": numbers.uniform(5, RAY_SECONDS)}, most=2,
                      change=on_ray)


def kill_chain(run: SmallRun, verb: str, numbers: random.Random, plan: Callable[[], dict[str, Any]], *,
               most: int = MOST_KILLS, **settings: Any) -> int:
    """Kill a verb up to `most` times as `plan` says, then let it end; returns the number of kills. Raises Damage."""
    kills = 0
    for _ in range(numbers.randint(1, most)):
        ended = run.run(verb, **plan(), **settings)
        if ended.code == 0:
            break
        refuse_unless(ended.code in ALL_ENDS, f"before kill {kills + 1} the verb fails", ended)
        kills += 1
    ended = run.run(verb, **settings)
    refuse_crash(run, verb, ended, in_process="change" not in settings)
    refuse_unless(ended.code == 0, f"after {kills} kills the verb fails", ended)
    if differences := run.differences(run.after(verb)):
        raise Damage(f"after {kills} kills: {differences}")
    return kills


def start(run: SmallRun, verb: str, numbers: random.Random) -> None:
    """Bring the run into the state before a verb. The first one mostly has a tracker, which takes long to make."""
    run.bring(verb)
    if verb == ORDER[0] and numbers.random() < 0.75:
        shutil.copy(run.folder / "before" / FINISHED / "tracking.db", run.place / "tracking.db")


def kill_somewhere(run: SmallRun, verb: str, numbers: random.Random) -> dict[str, Any]:
    """The arguments of `SmallRun.run` for a kill."""
    cost = run.cost(verb)
    match numbers.choice(["moment", "moment", "change", "change", "size"]):
        case "moment":
            return {"kill_after": numbers.uniform(0, cost.seconds)}
        case "change":
            return {"before": partial(kill_at_change, run.place, numbers.randint(1, cost.changes))}
        case _:
            return {"before": partial(kill_at_size, numbers.randint(*SIZES))}


def on_ray(recipe: Recipe) -> Recipe:
    """The same recipe on a cluster of its own."""
    return replace(recipe, cluster=replace(recipe.cluster, in_process=False))


KILLS = Kind(name="kill", verbs=ORDER, meet=meet_kills)
KILLS_ON_RAY = Kind(name="kill-ray", verbs=ORDER, meet=meet_kills_on_ray)
