"""Says when Ray has no room left for its logs and for what it takes out of memory.

Ray's processes die where they cannot write their logs. Ray starts them again and again, and prints pages that never
name the disk. Once there is room, the work goes on.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from pathlib import Path

import ray

from pipeline.disk_space import free_bytes

log = logging.getLogger(__name__)

LEAST_ROOM = 2**20          # bytes; with fewer no process of Ray starts
EVERY = 2.0                 # seconds between two looks at the disk
AGAIN = 30.0                # seconds after which a disk that stays full is named again
CURE = ("Make room there. RAY_TMPDIR names another folder for a cluster that a verb starts itself; its path has to be "
        "short.")


def watch_room() -> None:
    """From now on log a line whenever the disk of this process's Ray is full, while Ray runs."""
    folder = session_folder()
    if folder is not None and folder.is_dir():      # else another machine's
        threading.Thread(target=_watch, args=(folder,), daemon=True).start()


def refuse_no_room() -> None:
    """Raise OSError where the disk of this process's Ray is full."""
    folder = session_folder()
    if folder is not None and free_bytes(folder) < LEAST_ROOM:
        error = OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, so that Ray's processes die", str(folder))
        error.add_note(f"{free_bytes(folder):,} bytes are free on its disk. {CURE} Then run the same command again: "
                       "what is finished is kept.")
        raise error


def session_folder() -> Path | None:
    """The folder of the Ray that this process belongs to; None where it belongs to none."""
    node = ray._private.worker._global_node if ray.is_initialized() else None
    return None if node is None else Path(node.get_session_dir_path())


def _watch(folder: Path) -> None:
    named_at = -AGAIN
    while session_folder() == folder:
        left = free_bytes(folder)
        if left < LEAST_ROOM and time.monotonic() - named_at >= AGAIN:
            named_at = time.monotonic()
            log.warning("waiting: the disk of Ray's folder %s is full, %s bytes are free. %s The work then goes on.",
                        folder, f"{left:,}", CURE)
        time.sleep(EVERY)
