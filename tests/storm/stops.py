"""A verb that is told to stop prints one line, leaves no process, and goes on to the bytes of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
from functools import partial
from typing import Any

from jobs import stopping
from tests.storm.forked import STOPPING, Act, Ended
from tests.storm.kill_points import act_at_change
from tests.storm.kills import refuse_loss, start
from tests.storm.small_run import ORDER, SmallRun
from tests.storm.trials import Kind, refuse_unless

MOST_STOPS = 4              # of one trial
AGAIN = (stopping.SAME_SECONDS + 0.1, stopping.SAME_SECONDS + 1)     # seconds until a second signal


def meet_stops(run: SmallRun, verb: str, numbers: random.Random) -> int:
    """Ctrl-C, SIGTERM and SIGHUP at any moment or before any change of a file, once or twice. Raises Damage."""
    start(run, verb, numbers)
    stops = 0
    for _ in range(numbers.randint(2, MOST_STOPS)):
        number = numbers.choice(STOPPING)
        ended = run.run(verb, **stop_somewhere(run, verb, numbers, number))
        if ended.code == 0:         # it was faster: it begins anew
            refuse_loss(run, verb, ended, stops)
            start(run, verb, numbers)
            continue
        refuse_untidy(ended, number)
        stops += 1
    refuse_loss(run, verb, run.run(verb), stops)
    return stops


def stop_somewhere(run: SmallRun, verb: str, numbers: random.Random, number: int) -> dict[str, Any]:
    """The arguments of `SmallRun.run` for a signal."""
    cost = run.cost(verb)
    if numbers.random() < 0.4:
        change = numbers.randint(1, cost.changes)
        return {"before": lambda: listen() or act_at_change(run.place, change, partial(os.kill, os.getpid(), number))}
    first = numbers.uniform(0, cost.seconds)
    moments = [first, first + numbers.uniform(*AGAIN)][:numbers.randint(1, 2)]
    return {"before": listen, "acts": [Act(moment, partial(send, number)) for moment in moments]}


def listen() -> None:
    """Let this forked call handle signals as a verb does that a shell has started."""
    stopping.handle_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def send(number: int, process: int) -> None:
    """Send a signal to a whole group, as a terminal does."""
    os.killpg(process, number)


def refuse_untidy(ended: Ended, number: int) -> None:
    """Raise Damage unless a verb ended with the code of a signal, no process left, and one line, its last one."""
    refuse_unless(ended.code == 128 + number, f"{signal.Signals(number).name} does not end the verb", ended)
    refuse_unless(not ended.has_traceback, "a traceback", ended)
    refuse_unless(not ended.left, "it left processes behind", ended)
    lines = ended.said.splitlines()
    refuse_unless([line for line in lines if line.startswith("stopped by ")] == lines[-1:], "not one line", ended)


STOPS = Kind(name="stop", verbs=ORDER, meet=meet_stops)
