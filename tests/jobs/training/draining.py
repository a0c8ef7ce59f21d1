"""A training on two small machines, of which one is taken back. A program, since a process belongs to one Ray only."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import ray
import torch
from ray._private.node import Node
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from jobs.cluster import ClusterConfig, worker_environment
from jobs.training.checkpoint_folders import checkpoints
from jobs.training.loop import FitConfig
from jobs.training.trainer import Stage, TrainingJob, train
from tests.jobs.training.falling import falling_stage

FIT = FitConfig(steps=400, log_every=100, checkpoint_every=400)
DRAINED_AFTER = 3           # steps
NOTICE = 100.0              # seconds that the machine has at most, which are more than the steps of two workers take


def noted_stage(notes: Path) -> Stage:
    """A stage whose steps are slow with two workers; notes the number of workers and the step as rank 0 begins one."""
    stage = falling_stage(fit=FIT)

    def batches(rank: int, world: int, consumed: int):
        for step, batch in enumerate(stage.batches(rank, world, consumed), consumed):
            if rank == 0:
                with notes.open("a") as file:
                    file.write(f"{world} {step}\n")
            time.sleep(0.2 * (world - 1))
            yield batch

    return replace(stage, losses_of=lambda wrapped, _: {"loss": wrapped(torch.ones(1, 1)).sum()}, batches=batches)


def give_notice(cluster: Cluster, machine: Node, seconds: float) -> None:
    """Say that a machine will be gone in some seconds."""
    GcsClient(address=cluster.address).drain_node(
        machine.node_id, autoscaler_pb2.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, "taken back",
        int((time.time() + seconds) * 1000))


def drain(cluster: Cluster, machine: Node, folder: Path) -> None:
    """Take a machine back: give notice once training has made some steps, and end it soon after one is saved.

    No checkpoint is due so early, so it is saved because of the notice. Its workers may still be about to leave.
    """
    notes = folder / "steps"
    while not notes.is_file() or len(notes.read_text().splitlines()) < DRAINED_AFTER:
        time.sleep(0.1)
    give_notice(cluster, machine, NOTICE)
    while not checkpoints(folder / "stage_one"):
        time.sleep(0.1)
    time.sleep(1.0)
    cluster.remove_node(machine)


def main(folder: Path) -> None:
    """Train in `folder`, and note the steps in its file `steps`."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
    second = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    ray.init(address=cluster.address, runtime_env={"env_vars": worker_environment()}, log_to_driver=False)
    threading.Thread(target=drain, args=(cluster, second, folder), daemon=True).start()
    job = TrainingJob(build=partial(noted_stage, folder / "steps"), folder=folder / "stage_one", fit=FIT, record=None,
                      cluster=ClusterConfig(workers=2, min_workers=1, max_failures=0))
    train(job, identity={"steps": FIT.steps})
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
