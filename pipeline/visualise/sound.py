"""Adding the sound of a video file to an overlay of it."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from pipeline.disk_space import named, tells_of_full_disk
from pipeline.files import partial_path, publish

log = logging.getLogger(__name__)

CHILD = Path(__file__).with_name("sound_child.py")
SECONDS = 60        # to start, and per hour of sound as long again: copying sound is far faster


def add_sound(overlay: Path, source: Path, *, start: float, end: float) -> bool:
    """Put the first sound stream of `source` between two times into `overlay`, an mp4; whether there was one.

    start, end: seconds in the source's own time. A child process does it, because damaged files can hang or crash the
    libraries; where it fails, the overlay stays silent, and a line of the log gives the reason. Raises OSError where
    the disk is full.
    """
    target = partial_path(overlay)
    arguments = {"overlay": str(overlay), "source": str(source), "target": str(target), "start": start, "end": end}
    try:
        process = subprocess.run([sys.executable, "-P", str(CHILD), json.dumps(arguments)], stdin=subprocess.DEVNULL,
                                 capture_output=True, check=False, timeout=SECONDS * (1 + (end - start) / 3600))
        reason = process.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        if process.returncode == 0 and target.exists():
            publish(target, overlay)
            return True
        if process.returncode and tells_of_full_disk(reason[0]):
            raise named(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), overlay, overlay.stat().st_size)
        if process.returncode:
            log.warning("%s has no sound: that of %s cannot be copied (%s)", overlay.name, source, reason[0][:200])
    except subprocess.TimeoutExpired:
        log.warning("%s has no sound: that of %s took too long to copy", overlay.name, source)
    finally:
        target.unlink(missing_ok=True)
    return False
