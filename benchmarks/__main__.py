"""Run benchmarks, and compare their ratios with the recorded ones.

    python -m benchmarks                                 # all of them, about 17 minutes on a quiet machine
    python -m benchmarks shards loading                  # some
    python -m benchmarks query_cache --size official     # a larger size, where a benchmark has one
    python -m benchmarks shards --size toy               # a try in seconds, of which nothing is kept
    python -m benchmarks --table                         # only write benchmarks/README.md from the results

Every benchmark is a module with three names: `MEASURES`, the files whose speed it measures, `SIZES`, its settings by
name, of which `toy` runs in the tests, and `run(size, results)`. `NOTES`, where there is one, stands below its table.
Each runs in a process of its own. The exit code is 1 if a benchmark fails, or if a ratio fell by more than its repeats
lie apart.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

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
    try:
        refuse_unknown_names(options.names)
        modules = {name: import_module(f"benchmarks.{name}") for name in BENCHMARKS}
        chosen = having_size(options.names, options.size, modules)
        rows = read_rows()      # one that cannot be read is named before anything runs
    except ValueError as error:
        parser.error(str(error))
    if options.size == "toy" and not options.table:     # whose numbers mean nothing
        with tempfile.TemporaryDirectory() as folder:
            return 1 if run_all(chosen, options.size, folder=Path(folder)) else 0
    failed = [] if options.table else run_all(chosen, options.size)
    PAGE.write_text(page(rows if options.table else read_rows(), modules))
    return 1 if failed else 0


def refuse_unknown_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that no benchmark has, with the nearest ones."""
    for name in names:
        if name not in BENCHMARKS:
            near = difflib.get_close_matches(name, BENCHMARKS, n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(f"no benchmark is called {name}; {hint}There are {', '.join(BENCHMARKS)}")


def having_size(names: Iterable[str], size: str, modules: Mapping[str, ModuleType]) -> list[str]:
    """The named benchmarks; where none is named, all that have the size. Raises ValueError where one, or each, lacks
    it."""
    chosen = list(dict.fromkeys(names)) or [name for name in BENCHMARKS if size in modules[name].SIZES]
    for name in chosen:
        if size not in modules[name].SIZES:
            raise ValueError(f"{name} has no size called {size!r}, only {', '.join(modules[name].SIZES)}; give one by "
                             "--size")
    if not chosen:
        sizes = sorted({known for module in modules.values() for known in module.SIZES})
        raise ValueError(f"no benchmark has a size called {size!r}; there are {', '.join(sizes)}")
    return chosen


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
