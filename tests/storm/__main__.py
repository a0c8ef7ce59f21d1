"""The storm: planned faults in all verbs, for as long as it is told to, and a table of those that were survived.

    python -m tests.storm --minutes 60
    python -m tests.storm --short                                               # the same few trials every time
    python -m tests.storm --kind kill --verb evaluate --seed 17 --trials 1      # repeats one trial

The exit code is 1 where a promise was not kept; each such trial is named with the command that repeats it.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# One token for all clusters: Ray reads it once, when it is imported.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))

import mlflow  # noqa: F401 - imported here, so that no forked verb has to
import sqlalchemy  # noqa: F401
import torch
import tyro

from tests.storm.drains import DRAINS
from tests.storm.foreign_files import FOREIGN_FILES
from tests.storm.full_disks import FULL_DISK
from tests.storm.kills import KILLS
from tests.storm.on_ray import KILLS_JOINED, KILLS_ON_RAY, STOPS_ON_RAY
from tests.storm.own_files import DAMAGED_SHARDS, OWN_FILES
from tests.storm.small_disk import with_own_mounts
from tests.storm.small_run import SmallRun
from tests.storm.stops import STOPS
from tests.storm.trackers import TRACKER
from tests.storm.trials import Damage, Tally, Trial

ALL_KINDS = (KILLS, KILLS_JOINED, KILLS_ON_RAY, STOPS, STOPS_ON_RAY, DRAINS, OWN_FILES, DAMAGED_SHARDS, FOREIGN_FILES,
             FULL_DISK, TRACKER)
KINDS = {kind.name: kind for kind in ALL_KINDS}

# The trials of a short storm, always the same ones. They have each kind that needs no Ray.
SHORT_SEED = 14
SHORT = {"kill": ("make_shards", "cache_queries", "train_stage_two"),
         "stop": ("train_stage_one", "predict"),
         "own-files": ("make_shards", "train_stage_one", "cache_queries", "train_links", "train_stage_two"),
         "damaged-shards": ("verify_shards",),
         "foreign-files": ("make_shards", "evaluate", "predict"),
         "full-disk": ("train_links",),
         "tracker": ("train_stage_two",)}


def main(minutes: float = 60.0, seed: int = 0, verb: tuple[str, ...] = (), kind: tuple[str, ...] = (),
         trials: Annotated[int | None, tyro.conf.arg(metavar="N")] = None, short: bool = False,
         folder: Path | None = None) -> int:
    """Bring a storm upon the verbs.

    Args:
        minutes: after these no further trial begins.
        seed: of the first trial of every kind and verb; the following ones count up.
        verb: only these verbs.
        kind: only these kinds of faults.
        trials: at most so many of every kind and verb.
        short: only the trials of `SHORT`, whatever else is given, and all of them.
        folder: where the run is made and torn at; what is left of a failure stays there, and the next storm of the
            same code takes the run from there. Default: a temporary one.
    """
    end = time.monotonic() + 60 * (math.inf if short else minutes)
    pairs = [(name, one) for name, verbs in SHORT.items() for one in verbs] if short else chosen(kind, verb)
    seed, trials = (SHORT_SEED, 1) if short else (seed, trials)
    if any(name == FULL_DISK.name for name, _ in pairs):
        with_own_mounts()
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))     # its cluster ends with it
    place = Path(tempfile.mkdtemp(prefix="storm-")) if folder is None else folder.absolute()
    run = SmallRun(place / "run")
    try:
        run.make()
        print(f"a run without faults: {sum(cost.seconds for cost in run.costs.values()):.0f} s in {place}", flush=True)
        tally = Tally()
        for trial in planned(pairs, seed, trials):
            if time.monotonic() > end:
                break
            attempt(run, trial, tally)
    finally:
        run.close()
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    print(tally.table())
    for trial, problem in tally.failures:
        print(f"\nfailed: {trial.command}\n  {problem}")
    return 1 if tally.failures else 0


def chosen(kinds: tuple[str, ...], verbs: tuple[str, ...]) -> list[tuple[str, str]]:
    """(kind, verb) of all that is wanted. Raises SystemExit for a name that there is not."""
    if unknown := set(kinds) - KINDS.keys():
        sys.exit(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    pairs = [(name, verb) for name in kinds or KINDS for verb in KINDS[name].verbs if not verbs or verb in verbs]
    return pairs or sys.exit(f"none of these kinds of faults has a verb {', '.join(verbs)}")


def planned(pairs: list[tuple[str, str]], seed: int, trials: int | None) -> Iterator[Trial]:
    """All kinds and verbs in turn, with rising seeds, each time in another order: a short storm has some of every kind.
    """
    for number in itertools.count(seed) if trials is None else range(seed, seed + trials):
        for kind, verb in random.Random(number).sample(pairs, len(pairs)):
            yield Trial(kind=kind, verb=verb, seed=number)


def attempt(run: SmallRun, trial: Trial, tally: Tally) -> None:
    """Make one trial, and say how it ended."""
    started = time.monotonic()
    faults = 0
    problem = ""
    try:
        faults = KINDS[trial.kind].meet(run, trial.verb, trial.numbers)
    except (Damage, TimeoutError) as error:
        problem = str(error)
    tally.add(trial, faults, problem)
    print(f"{trial.kind} {trial.verb} {trial.seed}: {'lost: ' + problem if problem else f'{faults} faults survived'}, "
          f"{time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description=__doc__))
