"""Rows of results: one value each, with the commit and the machine that it was measured on, in `results/`."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"

RATIO = "x"         # unit of a comparison: the time of the baseline over our time


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured value. Of a comparison it is the ratio to the baseline; above 1, ours is faster."""

    benchmark: str
    name: str
    value: float        # the median of the repeats
    unit: str           # RATIO for a comparison
    low: float          # the least and the greatest of the repeats
    high: float
    repeats: int
    threads: int
    machine: str
    date: str
    commit: str = ""    # "+" at its end: the code had changes that were not committed; "": unknown
    code: str = ""      # digest of the measured files; "": unknown
    detail: Mapping[str, Any] = field(default_factory=dict)     # seconds and peaks of both sides, counts

    @property
    def spread(self) -> float:
        """How far the repeats lie apart."""
        return self.high - self.low


def machine(device: str = "cpu") -> str:
    """A short description without a host name, such as cpu-2core-x86_64 or nvidia-h200."""
    if device == "cuda":
        return torch.cuda.get_device_name().lower().replace(" ", "-")
    return f"cpu-{os.cpu_count()}core-{platform.machine()}"


def append(row: Row, folder: Path = RESULTS) -> None:
    """Append a row to the results of its machine."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{row.machine}.jsonl").open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def read_rows(folder: Path = RESULTS) -> list[Row]:
    """All rows of all machines, the oldest of a machine first. Raises ValueError, with file and line, for a broken one.
    """
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            try:
                rows.append(Row(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}, is not a result ({error}); delete the line, or bring the "
                                 "file back with git checkout") from None
    return rows


def latest(rows: Iterable[Row]) -> dict[tuple[str, str, str], Row]:
    """(machine, benchmark, name) -> its last row."""
    return {(row.machine, row.benchmark, row.name): row for row in rows}


def is_slower(now: Row, before: Row) -> bool:
    """Whether a ratio fell by more than the repeats of either measurement lie apart."""
    return now.unit == RATIO and now.value < before.value - max(now.spread, before.spread)


def digest(files: Iterable[str]) -> str:
    """Digest of the measured files, paths below the root of the project. A row with another digest is out of date."""
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(f"{file}\n".encode())
        total.update((ROOT / file).read_bytes())
    return total.hexdigest()[:16]


def commit() -> str:
    """The commit of the code, with "+" at its end where the code differs from it; "" without git."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
    try:
        return git("rev-parse", "--short=7", "HEAD") + "+" * bool(git("status", "--porcelain", "-uno", "*.py"))
    except (OSError, subprocess.SubprocessError):
        return ""
