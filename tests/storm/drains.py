"""A machine of a training is announced to go, and goes: no step is lost or repeated, and the other one ends the verb.

As a program, it takes the machine away: it runs beside the verb, since the storm itself may start no threads.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import ray
from ray._raylet import GcsClient
from ray.core.generated import autoscaler_pb2

from jobs.cluster import SUBMITTED_JOB
from jobs.recipes.schema import Recipe
from jobs.training.checkpoint_folders import checkpoints
from tests.conftest import ROOT
from tests.ray_head import end_tree
from tests.storm.kills import start
from tests.storm.small_run import SmallRun
from tests.storm.trials import Kind, refuse_crash, refuse_unless

STEPS = 120                 # of the training, which last longer than it takes to tell Ray that a machine will go
CPUS = 2                    # of each machine, and of a training process: each machine holds one
NOTICE = 60.0               # seconds that a machine has after its announcement
MOST_PATIENCE = 3.0         # seconds that it stays at most once the step is saved
STAGES = {"train_stage_one": "stage_one", "train_stage_two": "stage_two"}       # verb -> folder of its training


def meet_drains(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """One of two machines goes while a training has them; returns whether a process had to leave it. Raises Damage."""
    start(run, verb, numbers)
    stage = run.place / "run" / STAGES[verb]
    machine, node = run.head.add_machine(cpus=CPUS)
    words = [run.head.joining["RAY_ADDRESS"], node, machine.pid, stage, numbers.randint(1, STEPS // 3),
             numbers.uniform(0, MOST_PATIENCE)]
    taking = subprocess.Popen([sys.executable, "-m", "tests.storm.drains", *map(str, words)], cwd=ROOT,
                              env=run.head.env, stdout=subprocess.PIPE, text=True)
    try:
        refuse_unless_ready(taking)
        variables = run.head.joining | {SUBMITTED_JOB: "{}"}
        ended = run.run(verb, before=lambda: os.environ.update(variables), change=on_two_machines)
    finally:
        taking.kill()
        taking.wait()
        end_tree(machine)
    refuse_crash(run, verb, ended, in_process=False)
    refuse_unless(ended.code == 0, "without one of its machines the verb fails", ended)
    steps = [json.loads(line)["step"] for line in (stage / "progress.jsonl").read_text().splitlines()]
    refuse_unless(steps == list(range(1, STEPS + 1)), f"steps are lost or repeated: {steps}", ended)
    return int("a machine will soon be gone: the step is saved" in ended.said)


def refuse_unless_ready(taking: subprocess.Popen) -> None:
    """Wait until both machines belong to the cluster. Raises TimeoutError where the program has ended before."""
    if taking.stdout.readline() != "ready\n":
        raise TimeoutError("the second machine did not join the cluster")


def on_two_machines(recipe: Recipe) -> Recipe:
    """The same recipe with a training process on each of two machines, more steps, and no checkpoint before the last.
    """
    cluster = replace(recipe.cluster, in_process=False, workers=2, min_workers=1, cpus_per_worker=CPUS, max_failures=0)
    fit = {"steps": STEPS, "checkpoint_every": STEPS, "log_every": 1}
    one, two = recipe.stage_one, recipe.stage_two
    return replace(recipe, cluster=cluster, stage_one=replace(one, fit=replace(one.fit, **fit)),
                   stage_two=replace(two, fit=replace(two.fit, **fit)))


def take_away(address: str, node: str, machine: int, stage: Path, after: int, patience: float) -> None:
    """Wait for so many steps, announce that the node goes, and end it some seconds after the step that this saves."""
    ray.init(address=address, logging_level="error", log_to_driver=False)
    while node not in {one["NodeID"] for one in ray.nodes() if one["Alive"]}:
        time.sleep(0.2)
    print("ready", flush=True)
    progress = stage / "progress.jsonl"
    while not progress.is_file() or len(progress.read_text().splitlines()) < after:
        time.sleep(0.05)
    ends = time.time() + NOTICE
    GcsClient(address=address).drain_node(node, autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
                                          "taken back", int(1000 * ends))
    while not checkpoints(stage) and time.time() < ends:
        time.sleep(0.05)
    time.sleep(patience)
    end_tree(psutil.Process(machine))


DRAINS = Kind(name="drain", verbs=tuple(STAGES), meet=meet_drains)


if __name__ == "__main__":
    take_away(*sys.argv[1:3], int(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
