"""The memory consumption of this process."""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch


def peak_memory() -> float:
    """Peak memory of this process in GiB: the GPU's where there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    with suppress(OSError):     # Linux: `ru_maxrss` of a process that was started would begin with that of its parent
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


class PeakOfWork:
    """The memory that some work adds at its peak, in GiB. The work begins when the object is made."""

    def __init__(self) -> None:
        with suppress(OSError, AttributeError):     # Linux: freed memory is given back, and the highest level is now
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.before = peak_memory()

    def added(self) -> float:
        """The peak since the beginning, above the level at the beginning."""
        return max(peak_memory() - self.before, 0.0)
