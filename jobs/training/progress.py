"""The progress of a training run, printed as status lines and written as JSON lines. Only rank 0 reports it."""

from __future__ import annotations

import errno
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from jobs.console import say
from jobs.memory import peak_memory
from jobs.training.loop import StepReport
from pipeline import store
from pipeline.files import atomic_write, naming
from pipeline.foreign_files import LARGEST_JSON, read_file


class Progress:
    """Prints the status line and adds each report to `progress.jsonl`.

    Objects in a store only change as a whole, so there it is replaced with each checkpoint (`keep`).
    """

    def __init__(self, path: Path, steps: int, world: int) -> None:
        self.path = path
        self.steps = steps
        self.world = world
        path.parent.mkdir(parents=True, exist_ok=True)
        self.whole: bytes | None = None     # content of a file in a store
        if store.in_store(path):
            self.whole = read_file(path, largest=LARGEST_JSON) if path.is_file() else b""

    def __call__(self, report: StepReport) -> dict[str, float]:
        """Print and store one report; returns the numbers for the tracker."""
        numbers = {
            **{f"loss/{name}": value for name, value in report.losses.items()},
            "loss": sum(report.losses.values()), "lr": report.lr, "seconds_per_step": report.seconds,
            "data_wait_share": report.data_wait, "clips_per_second": report.samples_per_second * self.world,
            "memory_gib": peak_memory(),
        }
        left = (self.steps - report.step) * report.seconds
        say(f"step {report.step:05d}/{self.steps} ({100 * report.step / self.steps:.1f}%) | "
            f"loss {numbers['loss']:.3f} | lr {report.lr:.1e} | {report.seconds:.3f} s/step | "
            f"{numbers['clips_per_second']:.1f} clips/s | data wait {100 * report.data_wait:.0f}% | "
            f"{numbers['memory_gib']:.1f} GiB | left {left / 60:.1f} min")
        self._append(json.dumps({"time": time.time(), **asdict(report)}).encode() + b"\n")
        return numbers

    def keep(self) -> None:
        """Replace a file in a store by one with all reports so far. Any other holds them already."""
        if self.whole:
            atomic_write(self.path, self.whole)

    def _append(self, line: bytes) -> None:
        """Add a line. Raises OSError naming the file, which then ends with the line before, when the disk is full."""
        if self.whole is not None:
            self.whole += line
            return
        with naming(self.path, needed=len(line)), self.path.open("ab", buffering=0) as lines:
            end = lines.tell()
            try:
                if lines.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                lines.truncate(end)
                raise
