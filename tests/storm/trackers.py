"""A tracker that dies, hangs, answers nonsense, is locked or damaged costs no verb its result, and gets the rest later.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from jobs.training.record import waiting
from jobs.training.tracking import create_store
from tests.storm.faulty_tracker import DATABASE, FAULTS, address_of, listening, tracker
from tests.storm.forked import Ended, forked
from tests.storm.ledgers import refuse_unlogged
from tests.storm.own_files import cut, emptied, noise, zeros
from tests.storm.small_run import ORDER, SYNC, SmallRun
from tests.storm.trials import Damage, Kind, refuse_crash, refuse_unless

REQUESTS = 40               # of a verb to its tracker, about
SECONDS = "2"               # that a verb waits for an answer
LOCKS = {"locked": 8.0, "locked for long": None}        # seconds
DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    damage.__name__: damage for damage in (cut, emptied, noise, zeros)}
OWN_STORE = (*LOCKS, *DAMAGES)


def meet_bad_tracker(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Run a verb with a tracker that fails, then log with one that works what could not be logged. Raises Damage."""
    run.bring(verb)
    fault = numbers.choice([*FAULTS, "nobody", *(OWN_STORE if verb != ORDER[0] else ())])
    try:
        if fault in OWN_STORE:
            with_own_store(run, verb, fault, numbers)
        else:
            with_server(run, verb, fault, numbers)
    except Damage as error:
        raise Damage(f"{fault}: {error}") from None
    return 1


def with_server(run: SmallRun, verb: str, fault: str, numbers: random.Random) -> None:
    """Run a verb with a server that fails after some requests, or with the address of none."""
    folder = run.folder / "server"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(empty_database(run.folder), folder / DATABASE)
    with listening() as listener:
        address = address_of(listener)
        if fault == "nobody":
            refuse_harm(run, verb, run.run(verb, before=partial(use_tracker, "http://127.0.0.1:9")))
        else:
            with tracker(folder, listener, fault=fault, after=numbers.randint(0, REQUESTS)):
                refuse_harm(run, verb, run.run(verb, before=partial(use_tracker, address)))
        with tracker(folder, listener):
            refuse_unlogged(run, verb, before=partial(use_tracker, address, seconds="30"))


def empty_database(folder: Path) -> Path:
    """The database of a server that has answered no request: one that is killed while it makes it never works again."""
    database = folder / "empty.db"
    if not database.exists():
        with_tables = partial(create_store, f"sqlite:///{database}")
        if (ended := forked(lambda: with_tables() or 0, folder / "log.txt")).code:
            raise RuntimeError(ended.said)
    return database


def with_own_store(run: SmallRun, verb: str, fault: str, numbers: random.Random) -> None:
    """Run a verb whose database beside the run is locked by somebody else, or damaged."""
    database = run.place / "tracking.db"
    if fault in LOCKS:
        with locked(database, numbers.uniform(0, run.cost(verb).seconds), LOCKS[fault]):
            refuse_harm(run, verb, run.run(verb))
        refuse_unlogged(run, verb)
        return
    DAMAGES[fault](database, numbers)
    refuse_harm(run, verb, run.run(verb))
    if run.run(SYNC).code:
        database.unlink(missing_ok=True)
        ended = run.run(SYNC)
        refuse_unless(ended.code == 0, "with a new store, what waits is not logged", ended)
    if left := waiting(run.place / "run"):
        raise Damage(f"{left} things still wait to be logged")


@contextmanager
def locked(database: Path, after: float, seconds: float | None) -> Iterator[None]:
    """A database that another process locks after some seconds, for some, or until the block ends."""
    child = os.fork()
    if child == 0:
        _lock_and_leave(database, after, seconds)
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _lock_and_leave(database: Path, after: float, seconds: float | None) -> None:
    try:
        wait = threading.Event().wait
        wait(after)
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            wait(seconds)
    finally:
        wait(None)


def refuse_harm(run: SmallRun, verb: str, ended: Ended) -> None:
    """Raise Damage unless a verb made its files, or named the tracker before it began; the next one has a new store."""
    refuse_crash(run, verb, ended)
    if ended.code:
        refuse_unless(ended.code in (1, 2) and "track" in ended.said, "the tracker is not named", ended)
        (run.place / "tracking.db").unlink(missing_ok=True)
        again = run.run(verb)
        refuse_crash(run, verb, again)
        refuse_unless(again.code == 0, "with a new store", again)
    if differences := run.differences(run.after(verb)):
        raise Damage(f"{differences}, printed: {ended.said[-800:]}")


def use_tracker(uri: str, seconds: str = SECONDS) -> None:
    """Let the verbs of this process record in another tracker, and wait so long for its answers."""
    os.environ.update(MLFLOW_TRACKING_URI=uri, MLFLOW_HTTP_REQUEST_TIMEOUT=seconds, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")


TRACKER = Kind(name="tracker", verbs=ORDER, meet=meet_bad_tracker)
