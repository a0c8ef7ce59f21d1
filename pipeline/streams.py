"""The Ray Data chains: the only file of this room that knows Ray. Each link names what goes in and what comes out.

The work itself is in stage functions that know nothing of Ray; the same functions run in a plain loop without it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import ray
import ray.data

from pipeline.files import canonical_json
from pipeline.records import Dataset
from pipeline.shards.plan import ShardPlan
from pipeline.shards.writer import make_shard


def shard_stream(dataset: Dataset, folder: Path, plan: ShardPlan, *, workers: int, strict: bool = False) -> Iterator[dict]:
    """Make all shards of a plan, at most `workers` at a time; yields what became of each, as they finish.

    The folder must be one that every node of the cluster sees. Starts a local Ray where none runs. An error of a
    stage is raised here as it was there.
    """
    write = partial(_shard_row, dataset=dataset, folder=folder, plan=plan, strict=strict)
    chain = (
        _one_task_per_row([{"shard": shard} for shard in range(len(plan.shards))])  # shard
        .map(write, num_cpus=1, concurrency=workers)                                # 1 -> 1   shard, facts (json)
    )
    return (json.loads(row["facts"]) for row in _rows(chain))


def _shard_row(row: dict, *, dataset: Dataset, folder: Path, plan: ShardPlan, strict: bool) -> dict:
    facts = make_shard(dataset, folder, plan, int(row["shard"]), strict=strict)
    facts = {name: facts[name] for name in ("name", "size", "videos", "clips", "frames", "skipped")}
    return {"shard": row["shard"], "facts": canonical_json(facts).decode()}


def _one_task_per_row(rows: list[dict]) -> ray.data.Dataset:
    """Rows as blocks of one, so that each is one task: one unit of retry, none waiting for its neighbours."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def _rows(chain: ray.data.Dataset) -> Iterator[dict]:
    """Rows as they come, without read-ahead; an error of a stage without Ray's wrapping."""
    try:
        yield from chain.iter_rows()
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
