"""The Ray Data chains, and the only file of this room that imports Ray.

The work is done by stage functions that do not depend on Ray; the same functions also run in a plain loop. A comment
beside each link of a chain names what its rows hold.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import ray.data
from ray import cloudpickle
from ray.experimental import internal_kv as kv
from ray.util.debug import log_once

from pipeline import store
from pipeline.files import canonical_json
from pipeline.progress import REPORT_EVERY, Place, Report
from pipeline.records import Dataset
from pipeline.shards.plan import ShardPlan
from pipeline.shards.writer import make_shard

MOST_BLOCKS = 4096      # of a chain

logging.getLogger("ray.data").setLevel(logging.WARNING)      # the plan and the end of every chain


class _InOneLine(logging.Filter):
    """The last line of a traceback in its place: an actor that died is replaced, or its error ends the chain."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            record.msg = f"{record.getMessage()} {next(iter(str(record.exc_info[1]).splitlines()), '')}"
            record.args = ()
            record.exc_info = None
        return True


class _InTheFileOnly(logging.Filter):
    """Keeps the records from the terminal: what they tell is raised, too."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.hide = True
        return True


for _module in ("operators.actor_pool_map_operator", "streaming_executor_state"):
    logging.getLogger(f"ray.data._internal.execution.{_module}").addFilter(_InOneLine())
logging.getLogger("ray.data.exceptions").addFilter(_InTheFileOnly())


def shard_stream(dataset: Dataset, folder: Path, plan: ShardPlan, *, workers: int,
                 strict: bool = False) -> Iterator[dict]:
    """Make all shards of a plan, at most `workers` at a time; yields the sidecar of each in the order they finish.

    Every node of the cluster must see the folder. A worker that dies is replaced, and its shard is begun again. Raises
    what `make_shard` raises.
    """
    write = partial(_make_shard, _Sent(dataset), folder, plan, strict=strict)
    pool = ray.data.TaskPoolStrategy(size=min(workers, len(plan.shards)))       # Ray warns about more
    return _results(
        _one_task_per_row([{"shard": shard} for shard in range(len(plan.shards))])              # shard
        .map(partial(_run, write), num_cpus=1, compute=pool)   # 1 -> 1  result, error
    )


class _Sent:
    """A value that is only read on another machine once that sees the same objects in stores as this one.

    A data set, for example, looks for its folder as soon as it is there.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Callable[..., _Sent], tuple[dict[str, str], bytes]]:
        return _received, (store.looked(), cloudpickle.dumps(self.value))


def _received(looked: dict[str, str], content: bytes) -> _Sent:
    store.look_too(looked)
    return _Sent(cloudpickle.loads(content))


def _make_shard(dataset: _Sent, folder: Path, *arguments: Any, **options: Any) -> dict:
    if store.in_store(folder):      # of which other machines only see the files
        folder.mkdir(parents=True, exist_ok=True)
    return make_shard(dataset.value, folder, *arguments, **options)


def actor_stream(rows: list[dict], actor: type, *, arguments: dict, actors: int, cpus: float = 1,
                 gpus: float = 0, failed_starts: int = 0, report: Report | None = None) -> Iterator[dict]:
    """Send rows through a pool of actors; yields what they return, in the order they finish.

    actor: a class that is built once per process with `arguments`; its instances are called with the values of a row
    and return what JSON can hold. The pool starts with as many actors as the cluster has room for, and grows with it.
    failed_starts: number of actors in a row that cannot be started, such as on a machine that is not ready, and are
    replaced; one that dies later is always replaced.
    report: is told where the actors are in their videos; they are then built with an argument `report` of their own.
    """
    most = max(min(actors, len(rows)), 1)
    # Where there are few rows, the actor that starts first must not take two of them: the others would get none.
    in_flight = 1 if len(rows) <= 2 * most else 2
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=min(most, _room(cpus, gpus)),
                                      max_tasks_in_flight_per_actor=in_flight)
    chain = _one_task_per_row(rows)
    chain.context.max_consecutive_actor_init_deaths = failed_starts
    chain.context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0      # rows in flight for each actor
    with _reports_to(report) as board:
        yield from _results(
            chain                                                                               # a row's values
            .map(_Stage, fn_constructor_args=(actor, _Sent(arguments), board), num_cpus=cpus, num_gpus=gpus,
                 compute=pool)                                                                  # 1 -> 1  result, error
        )


def _room(cpus: float, gpus: float) -> int:
    """The number of actors that the machines of the cluster have room for; at least one."""
    wanted = {name: each for name, each in (("CPU", cpus), ("GPU", gpus)) if each}
    there = ray.cluster_resources()
    return max(int(min((there.get(name, 0) / each for name, each in wanted.items()), default=1)), 1)


class _Stage:
    """An actor of the pool. It holds the stage, which is expensive to build."""

    def __init__(self, actor: type, arguments: _Sent, board: _Board | None) -> None:
        reports = {} if board is None else {"report": board.put}
        try:
            self.stage = actor(**arguments.value, **reports)
        except Exception as error:      # its first call raises it: Ray would start the actor again, and only tell text
            self.stage = partial(_raise, error)

    def __call__(self, row: dict) -> dict:
        return _run(self.stage, row)


class _Board:
    """Where actors pin up their places for the driver to read: a few entries of the cluster's own key-value store.

    An actor that collected them would take a process and seconds to start.
    """

    def __init__(self) -> None:
        self.prefix = f"places/{uuid.uuid4().hex}/".encode()

    def put(self, place: Place) -> None:
        """Pin up the place of an actor, in place of the earlier one of the same video."""
        with suppress(Exception):       # a busy store costs a place in the status line, never the video
            kv._internal_kv_put(self.prefix + os.fsencode(place.video), pickle.dumps(place))

    def take(self, *, everything: bool = False) -> list[Place]:
        """All places; those of finished videos, or all, are taken down."""
        places = []
        with suppress(Exception):
            for key in kv._internal_kv_list(self.prefix):
                places.append(pickle.loads(kv._internal_kv_get(key)))
                if everything or not places[-1].step:
                    kv._internal_kv_del(key)
        return places


@contextmanager
def _reports_to(report: Report | None) -> Iterator[_Board | None]:
    """A board whose places a thread passes on to `report`; None where nobody wants to know."""
    if report is None:
        yield None
        return
    board = _Board()
    ended = threading.Event()

    def pass_on() -> None:
        while not ended.wait(REPORT_EVERY):
            for place in board.take():
                report(place)

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield board
    finally:
        ended.set()
        thread.join()
        board.take(everything=True)


def _one_task_per_row(rows: list[dict]) -> ray.data.Dataset:
    """Rows as blocks of one row, so that each is a task of its own: it is retried alone and waits for no other.

    More rows than `MOST_BLOCKS` share that many blocks, since the driver holds an object for each block.
    """
    chain = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS))
    chain.context.enable_progress_bars = False      # pipeline/progress.py counts videos instead of blocks
    log_once("ray_data_progress_manager_disabled")    # Ray would print how to enable them, the first time
    return chain


def _run(stage: Callable[..., dict], row: dict) -> dict:
    """Call a stage with the values of a row; an error that the user's data or disk caused is returned as a value.

    Raised here, only the text of the error would come back through Ray Data.
    """
    try:
        return {"result": canonical_json(stage(**row)), "error": b""}
    except (ValueError, OSError) as error:
        return {"result": b"", "error": pickle.dumps(error)}


def _raise(error: Exception, **row: Any) -> NoReturn:
    raise error


def _results(chain: ray.data.Dataset) -> Iterator[dict]:
    """Yield what the stages return, in the order they finish.

    The first error ends the chain, which frees the CPUs of its actors at once.
    """
    with closing(iter(chain.iter_rows())) as rows:
        for row in rows:
            if row["error"]:
                raise pickle.loads(row["error"])
            yield json.loads(row["result"])
