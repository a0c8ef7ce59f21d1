"""Run benchmarks, and compare their ratios with the recorded ones.

    python -m benchmarks                                 # all of them, about 15 minutes on a quiet machine
    python -m benchmarks shards loading                  # some
    python -m benchmarks query_cache --size official     # a larger size, where a benchmark has one
    python -m benchmarks --table                         # only write benchmarks/README.md from the results

Every benchmark is a module with three names: `MEASURES`, the files whose speed it measures, `SIZES`, its settings by
name, of which `toy` runs in the tests, and `run(size, results)`. `NOTES`, where there is one, stands below its table.
Each runs in a process of its own. The exit code is 1 if a benchmark fails, or if a ratio fell by more than its repeats
lie apart.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from benchmarks.harness import run_one
from benchmarks.rows import RESULTS, is_slower, latest, read_rows
from benchmarks.table import PAGE, page

BENCHMARKS = ("trajectory_attention", "deformable_attention", "inference", "kmax_losses", "metrics", "panoptic_merge",
              "shards", "loading", "store", "scale", "batch_canvas", "query_cache", "evidence", "in_the_loop",
              "identity", "links", "cache_score")

# Read by the C library and by OpenMP when a process starts; see pipeline/training_input/loading.py.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "536870912", "OMP_NUM_THREADS": "1"}


def main() -> int:
    """Run what the command line names. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--size", default="full", help="a name in the SIZES of the benchmark")
    parser.add_argument("--table", action="store_true", help="only write benchmarks/README.md from the results")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    modules = {name: import_module(f"benchmarks.{name}") for name in BENCHMARKS}
    chosen = [name for name in options.names or BENCHMARKS if options.size in modules[name].SIZES]
    if lacking := set(options.names) - set(chosen):
        parser.error(f"{', '.join(sorted(lacking))}: no size is called {options.size!r}")
    failed = [] if options.table else run_all(chosen, options.size)
    PAGE.write_text(page(read_rows(), modules))
    return 1 if failed else 0


def run_all(names: Iterable[str], size: str, *, folder: Path = RESULTS) -> list[str]:
    """Run benchmarks one after another and print what fell. Returns what failed or fell. folder: of the results."""
    os.environ.update(ENVIRONMENT)
    recorded = latest(read_rows(folder))
    failed = []
    for name in names:
        process = get_context("spawn").Process(target=run_one, args=(name, size, folder))
        process.start()
        process.join()
        failed += [f"{name} ended with exit code {process.exitcode}"] if process.exitcode else []
    now = latest(read_rows(folder))
    failed += [f"{row.benchmark}, {row.name}: {row.value:.2f}x, but {recorded[key].value:.2f}x on "
               f"{recorded[key].date[:10]}"
               for key, row in now.items() if key in recorded and is_slower(row, recorded[key])]
    print("\n".join(f"worse than recorded: {reason}" for reason in failed) or "no ratio is worse than recorded")
    return failed


if __name__ == "__main__":
    sys.exit(main())
