"""The progress of a training run, printed as status lines and written as JSON lines. Only rank 0 reports it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from jobs.console import say
from jobs.memory import peak_memory
from jobs.training.loop import StepReport


class Progress:
    """Prints the status line and appends each report to `progress.jsonl`."""

    def __init__(self, path: Path, steps: int, world: int) -> None:
        self.path = path
        self.steps = steps
        self.world = world
        path.parent.mkdir(parents=True, exist_ok=True)

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
        with self.path.open("a") as lines:
            lines.write(json.dumps({"time": time.time(), **asdict(report)}) + "\n")
        return numbers
