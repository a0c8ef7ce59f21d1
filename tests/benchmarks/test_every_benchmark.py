"""Every benchmark runs at toy size, with its checks that ours and the baseline compute the same."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.harness import Results
from benchmarks.rows import ROOT, read_rows

MODULES = {name: import_module(f"benchmarks.{name}") for name in BENCHMARKS}
TOOLS = {"__init__", "__main__", "harness", "rows", "table"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_at_toy_size_and_keeps_its_rows(name, tmp_path):
    module = MODULES[name]
    results = Results(name, measures=module.MEASURES, folder=tmp_path, repeats=1)
    module.run(module.SIZES["toy"], results)
    assert results.rows
    assert read_rows(tmp_path) == results.rows
    names = [row.name for row in results.rows]
    assert len(set(names)) == len(names)
    assert all(row.benchmark == name and row.value >= 0 and row.code for row in results.rows)


def test_every_module_is_a_benchmark_of_the_table_or_a_tool():
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == {*BENCHMARKS, *TOOLS}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_measured_files_exist(name):
    assert MODULES[name].MEASURES
    assert [file for file in MODULES[name].MEASURES if not Path(ROOT, file).is_file()] == []
