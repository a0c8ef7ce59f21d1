"""Lines of processes on other machines, without those that tell a user nothing."""

from __future__ import annotations

import re
from typing import Any

from ray._private.ray_logging import global_worker_stdstream_dispatcher
from ray._private.worker import global_worker, print_to_stdstream

# What is left out, from the first line to the last, by its cause.
NOISE = (
    # An actor of Ray Train that waits for the dashboard ends later than the training which it watches.
    (re.compile(r"Failed to stop PlacementGroupCleaner gracefully"), re.compile(r"GetTimeoutError")),
    (re.compile(r"Monitor thread did not exit within"), None),
    # torch asks for the name of each address that it connects to, and in many networks addresses have none.
    (re.compile(r"\[c10d\] The hostname of the client socket cannot be retrieved"), None),
)


class Sieve:
    """Takes the lines of each process in order; remembers in which piece of noise each one is."""

    def __init__(self) -> None:
        self._ends: dict[Any, re.Pattern] = {}      # by process

    def kept(self, process: Any, lines: list[str]) -> list[str]:
        """The lines that are no noise."""
        return [line for line in lines if not self._is_noise(process, line)]

    def _is_noise(self, process: Any, line: str) -> bool:
        if process in self._ends:
            if self._ends[process].search(line):
                del self._ends[process]
            return True
        for begins, ends in NOISE:
            if begins.search(line):
                if ends is not None:
                    self._ends[process] = ends
                return True
        return False


def print_without_noise() -> None:
    """From now on print what other processes of the connected cluster print, without noise."""
    sieve = Sieve()
    prefix = global_worker.job_logging_config is not None

    def show(data: dict[str, Any]) -> None:
        lines = sieve.kept((data["ip"], data["pid"], data["is_err"]), data["lines"])
        if lines:
            print_to_stdstream({**data, "lines": lines}, ignore_prefix=prefix)

    global_worker_stdstream_dispatcher.remove_handler("ray_print_logs")
    global_worker_stdstream_dispatcher.add_handler("ray_print_logs", show)
