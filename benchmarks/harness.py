"""Time two callables side by side, and measure the memory of each.

Results are ratios against a baseline. Both are timed in the same process, in turns, because machines are shared and
their speed drifts. Peaks are resident memory on a CPU (Linux) and allocated memory on a GPU.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import RATIO, RESULTS, Row, append, commit, digest, machine


class Results:
    """The results of one benchmark. Each is printed, and appended to `folder`/<machine>.jsonl."""

    def __init__(self, benchmark: str, *, measures: Sequence[str] = (), folder: Path = RESULTS,
                 repeats: int | None = None) -> None:
        """measures: the files whose speed is measured. repeats: rounds of every comparison; None: as each asks for."""
        self.benchmark = benchmark
        self.folder = folder
        self.repeats = repeats
        self.code = digest(measures)
        self.rows: list[Row] = []

    def compare(self, name: str, *, ours: Callable[[], Any], baseline: Callable[[], Any], repeats: int = 5,
                memory: bool = False, device: str = "cpu", agree: Callable[[Any, Any], None] | None = None) -> Row:
        """Time both in turns after one warm-up each.

        memory: also measure the peak of one more call of each. device: "cuda" waits for the GPU around each call.
        agree: raises an error where the results of the two warm-up calls, ours first, are not the same.
        """
        results = [function() for function in (ours, baseline)]
        if agree is not None:
            agree(*results)
        del results
        rounds = [_round(ours, baseline, ours_first=round_ % 2 == 0, device=device)
                  for round_ in range(self.repeats or repeats)]
        peaks = [peak_megabytes(function, device=device) if memory else None for function in (ours, baseline)]
        detail = {"ours_seconds": statistics.median(one for one, _ in rounds),
                  "baseline_seconds": statistics.median(other for _, other in rounds),
                  "ours_megabytes": peaks[0], "baseline_megabytes": peaks[1]}
        return self._keep(name, [other / one for one, other in rounds], RATIO, device, detail)

    def add(self, name: str, values: float | Sequence[float], unit: str, *, device: str = "cpu", **detail: Any) -> Row:
        """Store a value that is not a comparison, or the values of several repeats."""
        return self._keep(name, [values] if isinstance(values, (int, float)) else list(values), unit, device, detail)

    def _keep(self, name: str, values: list[float], unit: str, device: str, detail: dict[str, Any]) -> Row:
        row = Row(benchmark=self.benchmark, name=name, value=statistics.median(values), unit=unit, low=min(values),
                  high=max(values), repeats=len(values), threads=torch.get_num_threads(), machine=machine(device),
                  date=datetime.now(UTC).isoformat(timespec="seconds"), commit=commit(), code=self.code, detail=detail)
        print(line(row), flush=True)
        append(row, self.folder)
        self.rows.append(row)
        return row


def run_one(name: str, size: str, folder: Path) -> None:
    """Run one benchmark in this process. size: a name in its SIZES; at "toy", every comparison has one round."""
    torch.set_num_threads(1)
    module = import_module(f"benchmarks.{name}")
    repeats = 1 if size == "toy" else None
    module.run(module.SIZES[size], Results(name, measures=module.MEASURES, folder=folder, repeats=repeats))


def line(row: Row) -> str:
    """A row as text: name, value and spread, both sides, machine."""
    parts = [f"{row.name:<56}", f"{row.value:.3g} {row.unit} ({row.low:.3g} to {row.high:.3g})"]
    if "ours_seconds" in row.detail:
        parts += [f"ours {_seconds(row.detail['ours_seconds'])}",
                  f"baseline {_seconds(row.detail['baseline_seconds'])}"]
    if row.detail.get("ours_megabytes") is not None and row.detail.get("baseline_megabytes") is not None:
        parts.append(f"peak {row.detail['ours_megabytes']:.1f} MB against {row.detail['baseline_megabytes']:.1f} MB")
    return " | ".join([*parts, f"{row.machine}, {row.threads} thread{'s' * (row.threads > 1)}"])


def peak_megabytes(function: Callable[[], object], *, device: str = "cpu") -> float | None:
    """Highest memory during one call above the level before it; None if the system does not report it."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)                        # memory freed by earlier calls would hide the peak
        Path("/proc/self/clear_refs").write_text("5")           # reset the highest level so far
        before = _status("VmRSS")
        function()
        return (_status("VmHWM") - before) / 1e3
    except (OSError, AttributeError):
        return None


def _round(
    ours: Callable[[], object], baseline: Callable[[], object], *, ours_first: bool, device: str,
) -> tuple[float, float]:
    """Seconds of each; the order alternates from round to round."""
    if ours_first:
        first = seconds_of(ours, device)
        return first, seconds_of(baseline, device)
    first = seconds_of(baseline, device)
    return seconds_of(ours, device), first


def seconds_of(function: Callable[[], object], device: str) -> float:
    """The time of one call. device: "cuda" waits for the GPU around it."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _status(field: str) -> int:
    """A field of this process' status, in kilobytes."""
    for entry in Path("/proc/self/status").read_text().splitlines():
        if entry.startswith(f"{field}:"):
            return int(entry.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"
