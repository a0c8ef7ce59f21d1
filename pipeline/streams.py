"""The Ray Data chains: the only file of this room that knows Ray. Each link names what goes in and what comes out.

The work itself is in stage functions that know nothing of Ray; the same functions run in a plain loop without it.
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
    """Make all shards of a plan, at most `workers` at a time; yields what became of each, as they finish.

    The folder must be one that every node of the cluster sees. A worker that dies is replaced and its shard begun
    again. Raises what `make_shard` raises.
    """
    write = partial(make_shard, dataset, folder, plan, strict=strict)
    return _results(
        _one_task_per_row([{"shard": shard} for shard in range(len(plan.shards))])              # shard
        .map(partial(_run, write), num_cpus=1, compute=ray.data.TaskPoolStrategy(size=workers))  # 1 -> 1  result, error
    )


def actor_stream(rows: list[dict], actor: type, *, arguments: dict, actors: int, cpus: float = 1,
                 gpus: float = 0) -> Iterator[dict]:
    """Send rows through a pool of actors, each built once with `arguments`; yields what they return, as they finish.

    actor: a class whose instances are called with a row's values and return what JSON can hold. The pool starts with
    one actor: a fixed one as large as the cluster would leave no CPU for the rest of the chain and wait for ever.
    """
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(min(actors, len(rows)), 1))
    return _results(
        _one_task_per_row(rows)                                                                 # a row's values
        .map(_Stage, fn_constructor_args=(actor, arguments), num_cpus=cpus, num_gpus=gpus,
             compute=pool)                                                                      # 1 -> 1  result, error
    )


class _Stage:
    """An actor of the pool; holds the stage, which is expensive to build."""

    def __init__(self, actor: type, arguments: dict) -> None:
        self.stage = actor(**arguments)

    def __call__(self, row: dict) -> dict:
        return _run(self.stage, row)


def _one_task_per_row(rows: list[dict]) -> ray.data.Dataset:
    """Rows as blocks of one, so that each is one task: the unit of retry, and none waits for its neighbour."""
    chain = ray.data.from_items(rows, override_num_blocks=len(rows))
    chain.context.enable_progress_bars = False      # pipeline/progress.py speaks, in videos rather than blocks
    return chain


def _run(stage: Callable[..., dict], row: dict) -> dict:
    """Call a stage with the row's values; what a user's data or disk got wrong comes back as a value.

    Ray Data would keep such an error's text and lose the error.
    """
    try:
        return {"result": canonical_json(stage(**row)), "error": b""}
    except (ValueError, OSError) as error:
        return {"result": b"", "error": pickle.dumps(error)}


def _results(chain: ray.data.Dataset) -> Iterator[dict]:
    """What the stages returned, as it comes; the first error ends the chain, and frees its actors' CPUs at once."""
    with closing(iter(chain.iter_rows())) as rows:
        for row in rows:
            if row["error"]:
                raise pickle.loads(row["error"])
            yield json.loads(row["result"])
