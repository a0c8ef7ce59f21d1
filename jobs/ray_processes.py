"""Ends a verb whose own cluster has lost the processes that hold it together.

Without these processes Ray may end the verb, raise an error, or wait endlessly. For example, it waits for an actor that
was starting when they died.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import ray

from jobs.console import say
from jobs.stopping import end_all

EVERY = 2.0             # seconds between two looks
PATIENCE = 60.0         # seconds in which Ray itself may end the verb, and the verb may finish after an error
NEEDED = ("raylet", "gcs_server")


def watch_processes() -> None:
    """From now on end this process where its own cluster is lost and nothing else ends it; a joined one is not watched.
    """
    node = _own_node()
    if node is not None and node.is_head():
        threading.Thread(target=_watch, args=(node,), daemon=True).start()


def _own_node() -> Any:
    return ray._private.worker._global_node if ray.is_initialized() else None


def _watch(node: Any) -> None:
    while _own_node() is node:
        if lost := [kind for kind, _ in node.dead_processes() if kind in NEEDED]:
            time.sleep(PATIENCE)
            if _own_node() is node:
                _give_up(lost[0])
        time.sleep(EVERY)


def _give_up(lost: str) -> None:
    say(f"error: Ray's process {lost} died on this machine, and the verb waits for it in vain\n"
        f"  Look for the reason in {ray._private.worker._global_node.get_logs_dir_path()}, such as too little memory. "
        "Then run the same command again: what is finished is kept.", stream=sys.stderr)
    end_all(1)
