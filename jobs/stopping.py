"""Ctrl-C, SIGTERM and a closed terminal: one line, no process left behind, exit code 130 (SIGTERM: 143, SIGHUP: 129).

The first signal prints the line and silences everything after it, since Ray and its workers print pages when they are
cut off. The verb then unwinds as from a KeyboardInterrupt, so files close and MLflow's run is marked KILLED. A second
signal, or an unwinding that takes too long, ends the process at once. So does a thread where Python does not come to
handle the signal, since Ray keeps the main thread waiting for a cluster that the same signal has ended.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from pipeline.processes import is_alive, start_of

UNWINDING_SECONDS = 20.0        # after that the process is ended as by a second signal
SAME_SECONDS = 0.5              # in which a wrapper such as `uv run` may pass on the signal that the terminal sent too
ENDING_SECONDS = 2.0            # for processes to end by themselves before they are killed
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}

_SET_CHILD_SUBREAPER = 36       # of Linux's prctl

_process = 0                    # whose signals are handled; forked ones have other numbers
_line = "nothing was done yet"
_has_begun = False
_asked: tuple[int, float] | None = None         # signal and time
_watched = 0                    # process whose signals a thread watches


def handle_signals() -> None:
    """Handle the signals from now on. SIGHUP stays ignored where `nohup` started the verb."""
    global _process, _watched
    _process = os.getpid()
    for number in NAMES:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)
    if _watched != _process:
        _watched = _process
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_unwatched)
        threading.Thread(target=_watch, args=(reading,), daemon=True).start()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """A block in which Ray starts, which puts a handler of its own for SIGTERM in place of this one."""
    if _process != os.getpid():
        yield
        return
    try:
        yield
    except SystemExit as error:
        if error.code == signal.SIGTERM:        # by Ray's handler
            _on_signal(signal.SIGTERM, None)
        raise
    finally:
        handle_signals()


def begin(line: str) -> None:
    """From now on a signal unwinds the verb. line: what it keeps, and the command that goes on."""
    global _line, _has_begun
    _line = line
    _has_begun = True


def end_if_asked() -> None:
    """End the process, with everything that it started, if a signal has asked for it; from now on a signal does so."""
    global _line, _has_begun
    _has_begun = False
    if _asked is None:
        _line = "the verb had ended"
        return
    for number in NAMES:
        signal.signal(number, _at_once)
    _adopt_orphans()
    started = descendants()
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()      # a joined cluster stays, and forgets this process
    ends = time.monotonic() + ENDING_SECONDS
    while time.monotonic() < ends and any(is_alive(child, start=start) for child, start in started.items()):
        time.sleep(0.05)
    _kill_all(started)
    _at_once()


def end_all(code: int) -> NoReturn:
    """End the process and all that it started, also what these start meanwhile, with an exit code."""
    _adopt_orphans()
    ends = time.monotonic() + ENDING_SECONDS
    while _kill_all(descendants()) and time.monotonic() < ends:
        time.sleep(0.02)
    os._exit(code)


def descendants() -> dict[int, str]:
    """The processes that this one started, and those that they started: number -> start time."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        children.setdefault(_parent(path), []).append(int(path.name))
    below = {}
    waiting = [os.getpid()]
    while waiting:
        for child in children.get(waiting.pop(), []):
            below[child] = start_of(child)
            waiting.append(child)
    return below


def _on_signal(number: int, _) -> None:
    global _asked
    if os.getpid() != _process:         # a forked loader: its parent ends it
        if number != signal.SIGINT:
            os._exit(128 + number)
        return
    if _asked is not None:
        if time.monotonic() - _asked[1] > SAME_SECONDS:
            _at_once()
        return
    _asked = (number, time.monotonic())
    _say_line(number)
    if not _has_begun:
        _at_once()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)       # torch raises an error where a loader process ends
    watchdog = threading.Timer(UNWINDING_SECONDS, _at_once)
    watchdog.daemon = True
    watchdog.start()
    raise KeyboardInterrupt


def _watch(reading: int) -> None:
    """End the process where the main thread does not come to handle a signal. reading: gets the number of each."""
    global _asked
    while True:
        number = os.read(reading, 1)[0]
        began = time.monotonic()
        again = False
        while number in NAMES and _asked is None:
            seconds = time.monotonic() - began
            if again or seconds > UNWINDING_SECONDS:
                _asked = (number, began)
                _say_line(number)
                _at_once()
            if select.select([reading], [], [], 0.1)[0]:
                again = os.read(reading, 1)[0] in NAMES and seconds > SAME_SECONDS


def _unwatched() -> None:
    """Let the signals of a forked process not count as those of its parent."""
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


def _say_line(number: int) -> None:
    screen = os.dup(2)
    if _has_begun:          # first, since a thread passes on what Ray's workers print
        _silence()
    with suppress(OSError):         # of a terminal that is gone
        os.write(screen, f"\nstopped by {NAMES[number]}: {_line}\n".encode(errors="backslashreplace"))


def _at_once(*_) -> NoReturn:
    end_all(128 + _asked[0])


def _kill_all(processes: Mapping[int, str]) -> bool:
    """Kill processes that still run; whether there were any. processes: number -> start time."""
    running = [process for process, start in processes.items() if is_alive(process, start=start)]
    for process in running:
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)
    return bool(running)


def _adopt_orphans() -> None:
    """Stay an ancestor of the processes below whose own parent ends first, as Ray's agents outlive its raylet."""
    with suppress(OSError, AttributeError):         # elsewhere than on Linux they are not found
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _parent(folder: Path) -> int:
    """The number of the process that started the one of a folder of /proc; 0 where it is gone."""
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
