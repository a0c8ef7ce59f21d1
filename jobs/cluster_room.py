"""What a cluster can hold, now or once its autoscaler has added nodes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.cluster import ClusterConfig

Resources = Mapping[str, float]     # name -> amount, of a node or of a process

COUNTED = ("CPU", "GPU")


@dataclass(frozen=True)
class Demand:
    """Equal processes that a verb needs at the same time."""

    count: int
    each: Resources
    title: str          # of several
    cure: str           # how to need less


@dataclass(frozen=True)
class NodeType:
    """Nodes of one kind."""

    name: str
    resources: Resources | None     # of each; None: not known before a node starts
    nodes: float                    # at most
    runs: bool = True               # and need not be added

    def holds(self, process: Resources) -> float:
        """The number of processes that one such node can hold."""
        if self.resources is None:
            return math.inf
        return min(self.resources.get(name, 0) // amount for name, amount in process.items() if amount)

    def __str__(self) -> str:
        if self.resources is None:
            return f"{self.nodes:g} x {self.name} of unknown size"
        amounts = [f"{self.resources[name]:g} {name}s" for name in COUNTED if self.resources.get(name)]
        return f"{self.nodes:g} x {self.name} with {' and '.join(amounts) or 'no CPUs'}"


@dataclass(frozen=True)
class Room:
    """The nodes that a cluster can have."""

    types: tuple[NodeType, ...]
    added: float = 0                # nodes that an autoscaler may add, of all types together

    def holds(self, process: Resources) -> float:
        """The number of such processes that the cluster can hold at once."""
        total = 0.0
        left = self.added
        for kind in sorted(self.types, key=lambda kind: kind.holds(process), reverse=True):
            nodes = kind.nodes if kind.runs else min(kind.nodes, left)
            left -= 0 if kind.runs else nodes
            total += nodes * kind.holds(process) if nodes else 0.0
        return total

    def fault(self, demand: Demand) -> str:
        """Why the cluster can never hold the processes, with the cure; "" where it can. Ray would wait endlessly."""
        fit = self.holds(demand.each)
        if fit >= demand.count:
            return ""
        each = " and ".join(f"{amount:g} {name}s" for name, amount in demand.each.items() if amount)
        larger = ("raise max_workers of a node type" if self.added
                  else "add nodes by `ray start --address=HEAD:6379`")
        return (f"{demand.count} {demand.title} with {each} each do not fit, the cluster has room for {fit:g}: it "
                f"{'can have' if self.added else 'has'} {', '.join(map(str, self.types))}. {demand.cure}, or {larger}.")


def workers_of(cluster: ClusterConfig) -> Demand:
    """The training processes that must have room before any begins."""
    number = "min_workers" if cluster.min_workers else "workers"
    return Demand(cluster.fewest_workers, {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}, "workers",
                  f"Lower cluster.{number}, cluster.cpus_per_worker or cluster.gpus_per_worker")


def actors_of(cluster: ClusterConfig, *, count: int = 1) -> Demand:
    """The processes for caching, evaluating and predicting, whose pool works with one of them."""
    return Demand(count, {"CPU": cluster.cpus_per_actor, "GPU": cluster.gpus_per_actor}, "actors",
                  "Lower cluster.cpus_per_actor or cluster.gpus_per_actor" if count == 1 else
                  "Lower cluster.actors, cluster.cpus_per_actor or cluster.gpus_per_actor")


def room_of(nodes: Sequence[Mapping[str, Any]], config: Mapping[str, Any] | None) -> Room:
    """The room of a cluster. nodes: those of `ray.nodes()`. config: of its autoscaler, None where it has none."""
    if config is None or _is_complete(nodes, config):
        sizes = Counter(tuple(node["Resources"].get(name, 0) for name in COUNTED) for node in nodes if node["Alive"])
        return Room(tuple(NodeType("node", dict(zip(COUNTED, size)), times) for size, times in sizes.items()))
    total = config.get("max_workers", math.inf)
    types = []
    for name, kind in config["available_node_types"].items():
        size = kind.get("resources") or None
        is_head = name == config.get("head_node_type")
        if is_head:
            types.append(NodeType(name, size, 1))
        if further := kind.get("max_workers", 0 if is_head else total):
            types.append(NodeType(name, size, further, runs=False))
    return Room(tuple(types), added=total)


def _is_complete(nodes: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> bool:
    """Whether all nodes of an autoscaler run, so that those are known whose size its config does not tell.

    That of `ray up` for machines that one owns never does.
    """
    is_told = all(kind.get("resources") for kind in config["available_node_types"].values())
    return not is_told and sum(node["Alive"] for node in nodes) > config.get("max_workers", math.inf)


def connected_room() -> Room:
    """The room of the connected cluster, which is asked for the node types of its autoscaler."""
    import ray

    from jobs import node_probe
    from jobs.sending import on_node

    nodes = ray.nodes()
    context = ray.get_runtime_context()
    heads = [node["NodeID"] for node in nodes if node["Alive"] and "node:__internal_head__" in node["Resources"]]
    if context.get_node_id() in heads or not heads:
        return room_of(nodes, node_probe.autoscaling_config(context.gcs_address))
    return room_of(nodes, ray.get(on_node(node_probe.autoscaling_config, heads[0], context.gcs_address)))
