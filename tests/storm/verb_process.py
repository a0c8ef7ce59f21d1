"""A verb in a process of its own, as a shell starts it: what it prints, the processes that it starts, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from jobs.recipes.schema import Recipe

MARK = "STORM_TEST"         # a variable that all processes of a verb inherit


@contextmanager
def verb_processes() -> Iterator[Callable[..., VerbProcess]]:
    """Gives a function that starts a `VerbProcess`; all of them, and all that they started, end with the block."""
    started: list[VerbProcess] = []

    def start(*arguments, **options) -> VerbProcess:
        started.append(VerbProcess(*arguments, **options))
        return started[-1]

    try:
        yield start
    finally:
        for verb in started:
            verb.process.kill()
            verb.process.wait()
            for process in verb.processes():
                os.kill(process, signal.SIGKILL)


class VerbProcess:
    """A verb in a group of its own, as a shell starts it. ignored: a signal, as `nohup` lets it ignore SIGHUP."""

    def __init__(self, folder: Path, verb: str, recipe: Recipe, *settings: str, ignored: signal.Signals | None = None,
                 environment: Mapping[str, str] | None = None) -> None:
        self.mark = uuid.uuid4().hex
        self.screen = folder / "screen"
        changes = [word for change in (f"folder={recipe.run_folder}", *settings) for word in ("--set", change)]
        command = [sys.executable, "-m", f"jobs.{verb}", "--recipe", recipe.name, *changes]
        with self.screen.open("w") as screen:
            self.process = subprocess.Popen(
                command, stdout=screen, stderr=screen, process_group=0, preexec_fn=partial(_as_a_shell, ignored),
                env=os.environ | {MARK: self.mark, "OMP_NUM_THREADS": "1"} | dict(environment or {}))

    def wait_for(self, text: str, seconds: float = 240) -> None:
        ends = time.monotonic() + seconds
        while text not in self.said():
            assert self.process.poll() is None, self.said()[-2000:]
            assert time.monotonic() < ends, f"{text!r} does not come: {self.said()[-500:]}"
            time.sleep(0.05)

    def said(self) -> str:
        """Everything that it printed, in the order of a terminal."""
        return self.screen.read_text()

    def processes(self) -> dict[int, str]:
        """Number -> command line of all processes that came from the verb and still run."""
        commands = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes():
                    commands[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return {process: command for process, command in commands.items() if command}

    def stop(self, number: int, *, alone: bool = False, seconds: float = 60) -> str:
        """Send a signal, to the whole group as a terminal does or to the process alone; returns the one line.

        Asserts that the exit code is right, that nothing is printed after the line and that no process is left.
        """
        (os.kill if alone else os.killpg)(self.process.pid, number)
        assert self.process.wait(timeout=seconds) == 128 + number
        before, mark, after = self.said().rpartition("\nstopped by ")
        assert mark, self.said()
        assert "stopped by " not in before
        line, *rest = after.splitlines()
        assert rest == []
        ends = time.monotonic() + 5
        while self.processes() and time.monotonic() < ends:
            time.sleep(0.1)
        assert self.processes() == {}
        return line


def _as_a_shell(ignored: signal.Signals | None) -> None:
    """The signals of a new process as a shell leaves them, whatever this one ignores."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)
