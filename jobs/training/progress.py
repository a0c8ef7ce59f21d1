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
from pipeline.files import naming


class Progress:
    """Prints the status line and appends each report to `progress.jsonl`."""

    def __init__(self, path: Path, steps: int, world: int) -> None:
        self.path = path
        self.steps = steps
        self.world = world
        path.parent.mkdir(parents=True, exist_ok=True)
        store.fetch(path)

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
        """Replace the file in a store by this one, as a whole; nothing for a run that is in none."""
        if self.path.exists():
            store.put(self.path, self.path)

    def _append(self, line: bytes) -> None:
        """Add a line. Raises OSError naming the file, which then ends with the line before, when the disk is full."""
        with naming(self.path, needed=len(line)), self.path.open("ab", buffering=0) as lines:
            end = lines.tell()
            try:
                if lines.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                lines.truncate(end)
                raise
