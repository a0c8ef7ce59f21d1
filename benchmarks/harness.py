"""Time two callables side by side, and measure the memory of each.

Results are ratios against a baseline. Both are timed in the same process, in turns, because machines are shared and
their speed drifts. Peaks are resident memory on a CPU (Linux) and allocated memory on a GPU.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison; `ratio` above 1 means that ours is faster."""

    name: str
    ours_seconds: float                  # median
    baseline_seconds: float
    ratio: float                         # median over rounds of baseline / ours
    ours_megabytes: float | None         # peak above the level before the call; None: not measured
    baseline_megabytes: float | None
    repeats: int
    threads: int
    machine: str
    date: str


def compare(
    name: str, *, ours: Callable[[], object], baseline: Callable[[], object], repeats: int = 5, memory: bool = False,
    device: str = "cpu", folder: Path = RESULTS,
) -> Row:
    """Time both in turns after one warm-up each, print a line, and append the row to `folder`/<machine>.jsonl.

    memory: also measure the peak of one more call of each. device: "cuda" waits for the GPU around each call.
    """
    for function in (ours, baseline):
        function()
    rounds = [_round(ours, baseline, ours_first=round_ % 2 == 0, device=device) for round_ in range(repeats)]
    peaks = [peak_megabytes(function, device=device) if memory else None for function in (ours, baseline)]
    row = Row(name=name, ours_seconds=statistics.median(one for one, _ in rounds),
              baseline_seconds=statistics.median(other for _, other in rounds),
              ratio=statistics.median(other / one for one, other in rounds),
              ours_megabytes=peaks[0], baseline_megabytes=peaks[1], repeats=repeats, threads=torch.get_num_threads(),
              machine=machine(device), date=datetime.now(UTC).isoformat(timespec="seconds"))
    print(line(row), flush=True)
    append(asdict(row), device=device, folder=folder)
    return row


def append(values: dict, *, device: str = "cpu", folder: Path = RESULTS) -> None:
    """Append one line of plain values to the results of this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{machine(device)}.jsonl").open("a") as file:
        file.write(json.dumps(values) + "\n")


def line(row: Row) -> str:
    """A row as text: name, ours, baseline, ratio, machine."""
    parts = [f"{row.name:<52}", f"ours {_seconds(row.ours_seconds)}", f"baseline {_seconds(row.baseline_seconds)}",
             f"{row.ratio:5.2f}x"]
    if row.ours_megabytes is not None and row.baseline_megabytes is not None:
        parts.append(f"peak {row.ours_megabytes:7.1f} MB against {row.baseline_megabytes:7.1f} MB")
    return " | ".join([*parts, f"{row.machine}, {row.threads} thread{'s' * (row.threads > 1)}"])


def machine(device: str = "cpu") -> str:
    """A short description without a host name, such as cpu-2core-x86_64 or nvidia-h200."""
    if device == "cuda":
        return torch.cuda.get_device_name().lower().replace(" ", "-")
    return f"cpu-{os.cpu_count()}core-{platform.machine()}"


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
        first = _time(ours, device)
        return first, _time(baseline, device)
    first = _time(baseline, device)
    return _time(ours, device), first


def _time(function: Callable[[], object], device: str) -> float:
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
    return f"{seconds:7.2f} s " if seconds >= 1 else f"{seconds * 1e3:7.2f} ms"
