"""The connection to Ray, and the distribution of work to its actors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobs.stopping import handlers_kept
from jobs.surroundings import SUBMITTED_JOB
from pipeline.progress import Report

# The allocator reuses large buffers instead of mapping new ones for every frame, which makes decoding up to 2.6 times
# faster (docs/log.md). Each process has one thread, since the work is divided among processes.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "536870912", "OMP_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",     # the workers ask by themselves (jobs/training/leaving.py)
}

_started_own_cluster = False        # by this process

# The errors of Ray, by their names, that tell of a process or a machine that is gone, and not of the code.
LOSSES = ("LocalRayletDiedError", "NodeDiedError", "ObjectLostError", "OutOfMemoryError", "RayActorError",
          "RaySystemError", "RpcError", "WorkerCrashedError")

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")      # of training processes; a user may choose one


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """The processes and resources that the verbs request from Ray."""

    in_process: bool = False             # without Ray: everything runs in the process of the verb, in sequence
    workers: int = 2                     # training processes
    min_workers: int = 0                 # with which training begins or goes on while the cluster has no room for
                                         # more; 0: only with all of them
    cpus_per_worker: float = 1
    gpus_per_worker: float = 0
    actors: int = 2                      # processes for caching, evaluating and predicting, at most
    cpus_per_actor: float = 1
    gpus_per_actor: float = 0
    max_failures: int = 2                # worker deaths after which training resumes from the last checkpoint, a sweep
                                         # repeats a piece of its work, and a pool starts its actors anew
    local_cpus: int = 2                  # size of the cluster that is started where none is running
    object_store_mb: int = 300           # of that cluster

    def __post_init__(self) -> None:
        for name in ("workers", "actors", "local_cpus"):
            if getattr(self, name) < 1:
                raise ValueError(f"cluster.{name}={getattr(self, name)} must be at least 1; cluster.in_process=true "
                                 "is for one process without Ray")
        if not 0 <= self.min_workers <= self.workers:
            raise ValueError(f"cluster.min_workers={self.min_workers} must be at least 0 and at most "
                             f"cluster.workers={self.workers}")

    @property
    def fewest_workers(self) -> int:
        """The number of training processes without which training waits."""
        return self.min_workers or self.workers


def is_loss(error: Exception) -> bool:
    """Whether an error of Ray tells of a process or a machine that is gone."""
    ray_errors = sys.modules.get("ray.exceptions")      # Ray takes a second to import
    if ray_errors is None or getattr(error, "actor_init_failed", False):     # an error in the code
        return False
    return isinstance(error, tuple(getattr(ray_errors, name) for name in LOSSES))


def explained_loss(error: Exception) -> Exception:
    """An OSError with a cure where a process of Ray, or a worker, died once too often; else the error itself."""
    if not is_loss(error):
        return error
    loss = OSError(f"Ray lost a process of the verb: {next(iter(str(error).splitlines()), type(error).__name__)}")
    loss.add_note("Look for the reason in Ray's logs, such as too little memory or a machine that is gone. Then run "
                  "the same command again: what is finished is kept.")
    return loss


def connect(cluster: ClusterConfig) -> None:
    """Join the cluster that this process belongs to, or start a small one on this machine. Idempotent.

    Does nothing under `cluster.in_process`.
    """
    global _started_own_cluster
    if cluster.in_process:
        return
    if sys.flags.optimize > 1:
        raise ValueError("Ray needs docstrings, and python -OO (PYTHONOPTIMIZE=2) removes them; leave it out, or run "
                         "without Ray by --set cluster.in_process=true")
    import ray  # here and below: Ray takes a second to import, and `--help` and `--dry-run` answer without it

    from jobs.joined_cluster import answering_address, join, place_of_job
    from jobs.own_cluster import start_own_cluster
    from jobs.ray_processes import watch_processes
    from jobs.ray_room import watch_room

    if ray.is_initialized():
        return
    with handlers_kept():
        if inside_a_job():
            join(place_of_job(), environment=worker_environment())
        elif address := named_address():
            join(answering_address(address), environment=worker_environment())
        else:
            start_own_cluster(cpus=cluster.local_cpus, object_store_mb=cluster.object_store_mb,
                              environment=worker_environment())
            _started_own_cluster = True
    watch_room()
    watch_processes()


def leave_own_cluster() -> None:
    """End the cluster that `connect` started for this process, if it did; it takes seconds. A joined one stays."""
    if _started_own_cluster:
        import ray

        ray.shutdown()


def joins_cluster(cluster: ClusterConfig) -> bool:
    """Whether `connect` joins a cluster that exists, and starts none."""
    return not cluster.in_process and (inside_a_job() or bool(named_address()))


class InGroups:
    """An actor whose tasks are groups of the rows of another one."""

    def __init__(self, *, actor: type, arguments: dict[str, Any], **report: Report) -> None:
        self.actor = actor(**arguments, **report)

    def __call__(self, *, rows: str) -> dict[str, Any]:
        """rows: as JSON. Returns their results in order, "results"."""
        return {"results": list(self.actor.together(json.loads(rows)))}


def results_of(actor: type, rows: list[dict[str, Any]], *, arguments: dict[str, Any], cluster: ClusterConfig,
               report: Report | None = None, together: int = 1) -> Iterator[dict[str, Any]]:
    """Yield the result of `actor(**arguments)(**row)` for every row, in the order in which they finish.

    On the cluster a pool of actors shares the rows, and one failure is a machine on which none of them can be started.
    Under `cluster.in_process` one actor works through them in this process. Errors of the actor are raised here.
    report: is told where the actors are in their videos; they are then built with an argument `report` of their own.
    together: rows that are one task at most, where more than 1: the actor gets them at once, by
    `actor.together(rows)`.
    """
    if together > 1:
        groups = [{"rows": json.dumps(group)} for group in in_groups(rows, together, cluster)]
        made = results_of(InGroups, groups, arguments={"actor": actor, "arguments": arguments}, cluster=cluster,
                          report=report)
        return (result for group in made for result in group["results"])
    if not cluster.in_process:
        from pipeline.streams import actor_stream

        return actor_stream(rows, actor, arguments=arguments, actors=cluster.actors, cpus=cluster.cpus_per_actor,
                            gpus=cluster.gpus_per_actor, failed_starts=cluster.max_failures * cluster.actors,
                            report=report)
    call = actor(**arguments, **({} if report is None else {"report": report}))
    return (call(**row) for row in rows)


def in_groups(rows: list[dict[str, Any]], most: int, cluster: ClusterConfig) -> list[list[dict[str, Any]]]:
    """Rows in groups of up to `most`, but not so large that an actor of the pool would get none."""
    size = most if cluster.in_process else max(min(most, len(rows) // cluster.actors), 1)
    return [rows[start:start + size] for start in range(0, len(rows), size)]


def cluster_cpus() -> int:
    """The CPUs of the connected cluster."""
    import ray

    return max(int(ray.cluster_resources().get("CPU", 1)), 1)


def named_address() -> str:
    """The value of RAY_ADDRESS; "" where it is not set, or says that a verb starts its own cluster."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return "" if address == "local" else address


def inside_a_job() -> bool:
    """Whether this process was started by `ray job submit`."""
    return SUBMITTED_JOB in os.environ


def runtime_environment() -> dict[str, Any]:
    """The runtime environment that this process's job was submitted with, empty outside a job.

    Raises ValueError where the variable was set by something else.
    """
    try:
        return dict(json.loads(os.environ.get(SUBMITTED_JOB, "{}")).get("runtime_env") or {})
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{SUBMITTED_JOB}={os.environ[SUBMITTED_JOB]!r} does not come from `ray job submit`; unset it"
                         ) from None


def submitting() -> list[str]:
    """The words that stand before a command in order to submit it as this process's job was; none outside a job.

    Values of variables are left out, since a log must not show a secret.
    """
    if not inside_a_job():
        return []
    joined = sys.modules.get("jobs.joined_cluster")
    words = ["ray", "job", "submit", "--address", f"http://{getattr(joined, 'dashboard', '') or 'HEAD:8265'}",
             "--working-dir", "."]
    environment = {name: value for name, value in runtime_environment().items()
                   if name != "working_dir" and not name.startswith("_")}
    if "env_vars" in environment:
        environment["env_vars"] = dict.fromkeys(environment["env_vars"], "...")
    return [*words, *(["--runtime-env-json", json.dumps(environment)] if environment else []), "--"]


def worker_environment() -> dict[str, str]:
    """Variables of worker processes, without those that the submitted job sets itself: Ray accepts each only once."""
    chosen = runtime_environment().get("env_vars", {})
    own = {name: os.environ[name] for name in INTERFACES if name in os.environ}
    return {name: value for name, value in (WORKER_ENVIRONMENT | own).items() if name not in chosen}
