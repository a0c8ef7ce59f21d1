"""Calls in forked processes of their own: a verb starts in no time, since this process has imported everything.

The parent must not have started threads or Ray.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LONGEST = 300.0     # seconds; what takes longer hangs
KILLED = -int(signal.SIGKILL)
CRASH = 70          # exit code of a call that ended with an error which nobody expects


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a forked call ended."""

    code: int           # exit code, or minus the signal that ended it
    seconds: float
    megabytes: int      # the most memory that it held
    said: str           # everything it printed
    left: bool          # whether processes of its group outlived it

    @property
    def has_traceback(self) -> bool:
        return self.code == CRASH or "Traceback (most recent call last)" in self.said


def forked(call: Callable[[], int], log: Path, *, kill_after: float | None = None, longest: float = LONGEST) -> Ended:
    """Run `call` in a forked process group and wait for its end; its result is the exit code.

    log: file for everything that it prints. kill_after: seconds until the whole group is killed. Raises TimeoutError
    for a call that hangs, after killing it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    log.write_bytes(b"")
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _call_and_leave(call, log)
    end = started + (longest if kill_after is None else kill_after)
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > end:
            _kill_group(child)
            os.kill(child, signal.SIGKILL)      # it may have no group of its own yet
            _, status, usage = os.wait4(child, 0)
            if kill_after is None:
                raise TimeoutError(f"it did not end within {longest:.0f} s; {log} holds what it printed")
            break
        time.sleep(0.003)
    return Ended(code=os.waitstatus_to_exitcode(status), seconds=time.monotonic() - started,
                 megabytes=usage.ru_maxrss // 1024, said=log.read_text(errors="replace"), left=_kill_group(child))


def kill_own_group() -> None:
    """End this forked call and everything that it started, as a machine does that loses its power."""
    os.killpg(0, signal.SIGKILL)


def _call_and_leave(call: Callable[[], int], log: Path) -> None:
    """The life of the forked process. Never returns, so that no code of the parent runs twice."""
    code = CRASH
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, stream in ((nothing, 0), (file, 1), (file, 2)):
            os.dup2(descriptor, stream)
        sys.stdout = open(1, "w", buffering=1, closefd=False)      # noqa: SIM115 - the parent may have replaced them
        sys.stderr = open(2, "w", buffering=1, closefd=False)      # noqa: SIM115
        code = call()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _kill_group(group: int) -> bool:
    """Kill what is left of a group; returns whether anything was."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
