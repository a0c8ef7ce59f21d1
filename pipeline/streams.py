"""The Ray Data chains, and the only file of this room that imports Ray.

The work is done by stage functions that do not depend on Ray; the same functions also run in a plain loop. A comment
beside each link of a chain names what its rows hold.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import ray.data

from pipeline.files import canonical_json
from pipeline.records import Dataset
from pipeline.shards.plan import ShardPlan
from pipeline.shards.writer import make_shard


def shard_stream(dataset: Dataset, folder: Path, plan: ShardPlan, *, workers: int,
                 strict: bool = False) -> Iterator[dict]:
    """Make all shards of a plan, at most `workers` at a time; yields the sidecar of each in the order they finish.

    Every node of the cluster must see the folder. A worker that dies is replaced, and its shard is begun again. Raises
    what `make_shard` raises.
    """
    write = partial(make_shard, dataset, folder, plan, strict=strict)
    return _results(
        _one_task_per_row([{"shard": shard} for shard in range(len(plan.shards))])              # shard
        .map(partial(_run, write), num_cpus=1, compute=ray.data.TaskPoolStrategy(size=workers))  # 1 -> 1  result, error
    )


def actor_stream(rows: list[dict], actor: type, *, arguments: dict, actors: int, cpus: float = 1,
                 gpus: float = 0) -> Iterator[dict]:
    """Send rows through a pool of actors; yields what they return, in the order they finish.

    actor: a class that is built once per process with `arguments`; its instances are called with the values of a row
    and return what JSON can hold. The pool starts with one actor and grows: a fixed pool as large as the cluster would
    leave no CPU for the rest of the chain, which would then never start.
    """
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(min(actors, len(rows)), 1))
    return _results(
        _one_task_per_row(rows)                                                                 # a row's values
        .map(_Stage, fn_constructor_args=(actor, arguments), num_cpus=cpus, num_gpus=gpus,
             compute=pool)                                                                      # 1 -> 1  result, error
    )


class _Stage:
    """An actor of the pool. It holds the stage, which is expensive to build."""

    def __init__(self, actor: type, arguments: dict) -> None:
        self.stage = actor(**arguments)

    def __call__(self, row: dict) -> dict:
        return _run(self.stage, row)


def _one_task_per_row(rows: list[dict]) -> ray.data.Dataset:
    """Rows as blocks of one row, so that each is a task of its own: it is retried alone and waits for no other."""
    chain = ray.data.from_items(rows, override_num_blocks=len(rows))
    chain.context.enable_progress_bars = False      # pipeline/progress.py counts videos instead of blocks
    return chain


def _run(stage: Callable[..., dict], row: dict) -> dict:
    """Call a stage with the values of a row; an error that the user's data or disk caused is returned as a value.

    Raised here, only the text of the error would come back through Ray Data.
    """
    try:
        return {"result": canonical_json(stage(**row)), "error": b""}
    except (ValueError, OSError) as error:
        return {"result": b"", "error": pickle.dumps(error)}


def _results(chain: ray.data.Dataset) -> Iterator[dict]:
    """Yield what the stages return, in the order they finish.

    The first error ends the chain, which frees the CPUs of its actors at once.
    """
    with closing(iter(chain.iter_rows())) as rows:
        for row in rows:
            if row["error"]:
                raise pickle.loads(row["error"])
            yield json.loads(row["result"])
