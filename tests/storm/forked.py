"""Calls in forked processes of their own: a verb starts in no time, since this process has imported everything.

The parent must not have started threads or Ray.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

LONGEST = 300.0     # seconds; what takes longer hangs
KILLED = -int(signal.SIGKILL)
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
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
        """Whether it printed a traceback itself; Ray passes on those of its own processes with their name before."""
        return self.code == CRASH or re.search(r"^\s*Traceback \(most recent call last", self.said, re.M) is not None


@dataclass(frozen=True, slots=True)
class Act:
    """Something that is done to a call some seconds after its start. do: is given its process."""

    after: float
    do: Callable[[int], object]


def forked(call: Callable[[], int], log: Path, *, kill_after: float | None = None,
           acts: Iterable[Act] = (), longest: float = LONGEST) -> Ended:
    """Run `call` in a forked process group and wait for its end; its result is the exit code.

    log: file for everything that it prints. kill_after: seconds until the whole group is killed. acts: what is done to
    it meanwhile; `STOPPING` signals wait until the call unblocks them. Raises TimeoutError for a call that hangs, after
    killing it.
    """
    coming = sorted(acts, key=lambda act: act.after)
    sys.stdout.flush()
    sys.stderr.flush()
    log.write_bytes(b"")
    started = time.monotonic()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING if coming else ())
    child = os.fork()
    if child == 0:
        _call_and_leave(call, log)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    end = started + (longest if kill_after is None else kill_after)
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        if coming and time.monotonic() > started + coming[0].after:
            with suppress(ProcessLookupError):      # it has no group of its own yet
                coming[0].do(child)
                coming.pop(0)
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
        os.setpgid(0, 0)        # in the session of the storm, whose priority it keeps
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
    """Kill what is left of a group; returns whether anything still ran."""
    running = any(map(partial(_runs_in, group), Path("/proc").glob("[0-9]*")))
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return running


def _runs_in(group: int, folder: Path) -> bool:
    """Whether a process of /proc belongs to a group and has not ended. (Whoever has to may not have waited for it.)"""
    try:
        state, _, own_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(own_group) == group and state not in "ZX"
