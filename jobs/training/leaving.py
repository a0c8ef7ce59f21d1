"""Machines of a cluster that will soon be gone: a cloud takes them back, or an administrator drains them.

Ray Train has a process that looks for them, but it begins after the workers have, seconds later on a busy machine, and
it may lie on the very machine that goes. Each worker therefore asks Ray by itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Set
from typing import Any

import ray
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy

ASK_SECONDS = 1.0       # between two questions of a worker
GONE_SECONDS = 20.0     # after which Ray knows that a machine is gone whose processes it misses

Machines = Mapping[str, Mapping[str, float]]        # id -> resources


class Notice:
    """Tells whether the machine of this process will be gone. Asked often, it asks Ray every `ASK_SECONDS`."""

    def __init__(self) -> None:
        self._machine = ray.get_runtime_context().get_node_id()
        self._asked = -math.inf
        self._is_given = False

    def is_given(self) -> bool:
        """Whether Ray was told that this machine will be gone; it stays so."""
        if not self._is_given and time.monotonic() - self._asked >= ASK_SECONDS:
            self._asked = time.monotonic()
            self._is_given = self._machine in leaving_machines()
        return self._is_given


class StayingMachines(ElasticScalingPolicy):
    """Ray's choice of the number of workers, among the machines that are there and will stay.

    Ray's own count is up to 20 seconds old, and it has the machines that are being drained. A worker that is counted
    there never gets a place, and Ray tries again with another number only after a minute.
    """

    def _count_possible_workers(self, reserved_resources: Machines) -> int:
        return super()._count_possible_workers(staying(reserved_resources, ray.nodes(), leaving_machines()))


def staying(reserved: Machines, nodes: list[dict[str, Any]], leaving: Set[str]) -> Machines:
    """What Ray has reserved for a training, or all that the staying machines have where some of it lies on another.

    nodes: those of `ray.nodes()`. leaving: ids of nodes that will be gone.
    """
    stay = {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"] and node["NodeID"] not in leaving}
    return reserved if reserved.keys() <= stay.keys() else stay


def is_one_gone(machines: Set[str]) -> bool:
    """Whether one of these machines is gone. Waits until Ray must have noticed it."""
    ends = time.monotonic() + GONE_SECONDS
    while machines <= living_machines():
        if time.monotonic() > ends:
            return False
        time.sleep(0.5)
    return True


def living_machines() -> Set[str]:
    """The ids of the machines of the cluster."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def leaving_machines() -> Set[str]:
    """The ids of the machines that Ray was told will be gone."""
    return ray._private.state.state.get_draining_nodes().keys()
