"""A training of four workers on two machines, of which one is taken back and comes again; see draining.py."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private.node import Node
from ray.cluster_utils import Cluster

from jobs.cluster import ClusterConfig, worker_environment
from jobs.recipes.schema import Recipe
from jobs.training.checkpoint_folders import checkpoint_name, checkpoints
from jobs.training.trainer import Stage, TrainingJob, train
from tests.jobs.training.draining import give_notice
from tests.jobs.training.noted import noted_run, noted_stage

WORKERS = 4
FALLS_AT = 2            # step at which the second machine is taken back
RISES_AT = 4            # step at which there is a second machine again
MACHINE = {"object_store_memory": 80_000_000}


def waiting_stage(recipe: Recipe, notes: Path) -> Stage:
    """The stage, whose workers wait at the two steps until their number has changed."""
    stage = noted_stage(recipe, notes)

    def batches(rank: int, world: int, consumed: int) -> Iterator[Any]:
        waits_at = FALLS_AT if consumed == 0 else RISES_AT if world < WORKERS else None
        for batch in stage.batches(rank, world, consumed):
            if batch.samples[0] // stage.batch_size == waits_at:
                time.sleep(600)
            yield batch

    return replace(stage, batches=batches)


def resize(cluster: Cluster, machine: Node, folder: Path, training: Future) -> None:
    """Take the machine back once training waits for it, and bring another one once it waits for that."""
    wait_for(folder, FALLS_AT, training)
    give_notice(cluster, machine, 5.0)
    time.sleep(5.0)
    cluster.remove_node(machine)
    wait_for(folder, RISES_AT, training)
    cluster.add_node(num_cpus=1, **MACHINE)


def wait_for(folder: Path, step: int, training: Future) -> None:
    """Wait until a step is saved, or training has ended."""
    while not training.done() and checkpoint_name(step) not in [path.name for path in checkpoints(folder)]:
        time.sleep(0.2)


def main(folder: Path, notes: Path) -> None:
    """Train in `folder`. The shards are made there if they are missing."""
    recipe = noted_run(folder)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": WORKERS - 1, **MACHINE})
    machine = cluster.add_node(num_cpus=1, **MACHINE)
    ray.init(address=cluster.address, runtime_env={"env_vars": worker_environment()}, log_to_driver=False)
    stage_folder = folder / "stage_one"
    fit = recipe.stage_one.fit
    job = TrainingJob(build=partial(waiting_stage, recipe, notes), folder=stage_folder, fit=fit, record=None,
                      cluster=ClusterConfig(workers=WORKERS, min_workers=1, max_failures=0))
    with ThreadPoolExecutor(1) as thread:       # Ray adds machines in the main thread only
        training = thread.submit(train, job, identity={"steps": fit.steps})
        resize(cluster, machine, stage_folder, training)
        training.result()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
