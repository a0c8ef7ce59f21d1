"""One fault planned for one verb, and the count of those that were survived."""

from __future__ import annotations

import random
import shlex
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.storm.forked import Ended
from tests.storm.small_run import SmallRun

MEGABYTES = 300         # more than a verb needs without faults


class Damage(Exception):
    """A promise that was not kept: what was lost, mixed up or said."""


def refuse_unless(right: bool, problem: str, ended: Ended) -> None:
    """Raise Damage with the last lines that a verb printed."""
    if not right:
        raise Damage(f"{problem} (code {ended.code}): ...{ended.said[-1500:]}")


def refuse_crash(run: SmallRun, verb: str, ended: Ended, *, in_process: bool = True) -> None:
    """Raise Damage for a traceback, for processes that outlive a verb, and for far more memory than it needs."""
    refuse_unless(not ended.has_traceback, "a traceback", ended)
    refuse_unless(not ended.left or not in_process, "it left processes behind", ended)
    refuse_unless(ended.megabytes < run.cost(verb).megabytes + MEGABYTES,
                  f"it held {ended.megabytes} MB, without faults {run.cost(verb).megabytes} MB", ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of faults.

    meet: brings the faults of one trial upon a verb, all drawn from the random numbers; returns how many there were.
    Raises Damage.
    """

    name: str
    verbs: tuple[str, ...]
    meet: Callable[[SmallRun, str, random.Random], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Everything that is needed to repeat one trial."""

    kind: str
    verb: str
    seed: int

    @property
    def command(self) -> str:
        return shlex.join(["python", "-m", "tests.storm", "--kind", self.kind, "--verb", self.verb,
                           "--seed", str(self.seed), "--trials", "1"])

    @property
    def numbers(self) -> random.Random:
        return random.Random(f"{self.kind}/{self.verb}/{self.seed}")


@dataclass
class Tally:
    """The results of all trials."""

    survived: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    tried: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    faults: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    failures: list[tuple[Trial, str]] = field(default_factory=list)

    def add(self, trial: Trial, faults: int, problem: str) -> None:
        """Count a trial. problem: empty where it was survived."""
        key = (trial.kind, trial.verb)
        self.tried[key] += 1
        self.faults[key] += faults
        self.survived[key] += not problem
        if problem:
            self.failures.append((trial, problem))

    def table(self) -> str:
        """Survived and tried trials, and their faults, by kind and verb, in Markdown."""
        rows = [f"| {kind} | {verb} | {self.survived[kind, verb]} / {self.tried[kind, verb]} | "
                f"{self.faults[kind, verb]} |" for kind, verb in self.tried]
        total = f"| all | | {sum(self.survived.values())} / {sum(self.tried.values())} | {sum(self.faults.values())} |"
        return "\n".join(["| kind | verb | survived / tried | faults |", "|---|---|---|---|", *rows, total])
