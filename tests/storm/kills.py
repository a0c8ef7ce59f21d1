"""A verb that is killed several times and started again ends with the bytes of one that was never disturbed."""

from __future__ import annotations

import random
import shutil
import signal
from functools import partial
from typing import Any

from jobs.training.checkpoint_folders import OWN_CHECKPOINTS, RAY_CHECKPOINTS
from tests.storm.forked import KILLED, Ended
from tests.storm.kill_points import kill_at_change, kill_at_size
from tests.storm.ledgers import refuse_unlogged
from tests.storm.small_run import FINISHED, ORDER, SmallRun, is_partial
from tests.storm.trials import Damage, Kind, refuse_crash, refuse_unless

MOST_KILLS = 9              # of one trial
LEAST_SIZE = 1_000          # bytes that a file has when its writer is killed within a write
ALL_ENDS = (KILLED, -int(signal.SIGXFSZ))


def meet_kills(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Kills in one process: at any moment, before any change of a file, within a large write."""
    start(run, verb, numbers)
    kills = 0
    for _ in range(numbers.randint(3, MOST_KILLS)):
        ended = run.run(verb, **kill_somewhere(run, verb, numbers, part=1.0 if kills == 0 else 0.6))
        if ended.code == 0:         # it was faster: it begins anew
            refuse_loss(run, verb, ended, kills)
            start(run, verb, numbers)
            continue
        refuse_unless(ended.code in ALL_ENDS, f"after {kills} kills the verb fails", ended)
        kills += 1
    refuse_loss(run, verb, run.run(verb), kills)
    try:
        refuse_unlogged(run, verb)
    except Damage as error:
        raise Damage(f"after {kills} kills: {error}") from None
    return kills


def refuse_loss(run: SmallRun, verb: str, ended: Ended, kills: int, *, in_process: bool = True) -> None:
    """Raise Damage unless a verb has ended after some kills, with the bytes of one that was not disturbed."""
    refuse_crash(run, verb, ended, in_process=in_process)
    refuse_unless(ended.code == 0, f"after {kills} kills the verb fails", ended)
    differences = run.differences(run.after(verb), passing=() if in_process else ("recipe_digest", "command"))
    if not in_process:      # a worker may have outlived its verb for a moment, and what it began is deleted next time
        differences = {name: how for name, how in differences.items() if not is_partial(name) and not is_kept(name)}
    if differences:
        raise Damage(f"after {kills} kills: {differences}")


def is_kept(name: str) -> bool:
    """Whether a file belongs to a checkpoint: trainings on Ray keep theirs in a folder of another name."""
    return not {RAY_CHECKPOINTS, OWN_CHECKPOINTS}.isdisjoint(name.split("/"))


def start(run: SmallRun, verb: str, numbers: random.Random) -> None:
    """Bring the run into the state before a verb. The first one mostly has a tracker, which takes long to make."""
    run.bring(verb)
    if verb == ORDER[0] and numbers.random() < 0.75:
        shutil.copy(run.folder / "before" / FINISHED / "tracking.db", run.place / "tracking.db")


def kill_somewhere(run: SmallRun, verb: str, numbers: random.Random, *, part: float) -> dict[str, Any]:
    """The arguments of `SmallRun.run` for a kill. part: of the verb that is still to be done, about."""
    cost = run.cost(verb)
    match numbers.choice(["moment", "moment", "change", "change", "size"]):
        case "moment":
            return {"kill_after": numbers.uniform(0, part * cost.seconds)}
        case "change":
            change = numbers.randint(1, max(int(part * cost.changes), 1))
            return {"before": partial(kill_at_change, run.place, change)}
        case _:
            size = int(LEAST_SIZE * (cost.largest / LEAST_SIZE) ** numbers.random())
            return {"before": partial(kill_at_size, size)}


KILLS = Kind(name="kill", verbs=ORDER, meet=meet_kills)
