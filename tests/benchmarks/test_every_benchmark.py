"""Every benchmark runs at toy size, with its checks that ours and the baseline compute the same."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.__main__ import BENCHMARKS, having_size, run_all
from benchmarks.harness import run_one
from benchmarks.rows import ROOT, append, latest, read_rows
from tests.object_store import skip_without_a_server

MODULES = {name: import_module(f"benchmarks.{name}") for name in BENCHMARKS}
TOOLS = {"__init__", "__main__", "harness", "object_store", "rows", "table"}


@pytest.mark.long
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_at_toy_size_and_keeps_its_rows(name, tmp_path):
    if name == "store":
        skip_without_a_server()
    run_one(name, "toy", tmp_path)
    rows = read_rows(tmp_path)
    assert rows
    assert len(latest(rows)) == len(rows)       # no name occurs twice
    assert all(row.benchmark == name and row.value >= 0 and row.code for row in rows)


def test_the_command_runs_each_in_a_process_of_its_own_and_names_what_fell(tmp_path, capsys):
    assert run_all(["shards"], "toy", folder=tmp_path) == []
    assert "no ratio is worse" in capsys.readouterr().out
    [file] = tmp_path.iterdir()
    rows = read_rows(tmp_path)
    file.unlink()
    append(replace(rows[0], value=1000.0, low=999.0, high=1001.0), tmp_path)
    [fell] = run_all(["shards"], "toy", folder=tmp_path)
    assert fell.startswith(f"shards, {rows[0].name}: ")
    assert "but 1000.00x on" in fell


def test_one_that_raises_is_named_and_the_others_run(tmp_path, capfd):
    assert run_all(["table", "shards"], "toy", folder=tmp_path) == ["table ended with exit code 1"]     # no benchmark
    assert "AttributeError" in capfd.readouterr().err
    assert {row.benchmark for row in read_rows(tmp_path)} == {"shards"}


@pytest.mark.parametrize(("arguments", "words"), [
    (["shard"], "no benchmark is called shard; did you mean shards"),
    (["shards", "--size", "ful"], "shards has no size called 'ful', only toy, full; give one by --size"),
    (["--size", "ful"], "no benchmark has a size called 'ful'; there are full, official, toy")])
def test_what_does_not_exist_is_refused_before_anything_runs(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert words in capsys.readouterr().err


def test_without_names_those_run_that_have_the_size():
    assert having_size([], "toy", MODULES) == list(BENCHMARKS)
    assert set(having_size([], "official", MODULES)) < set(BENCHMARKS)


def test_nothing_of_a_toy_is_kept(monkeypatch, tmp_path):
    page = tmp_path / "README.md"
    folders = []
    monkeypatch.setattr("sys.argv", ["benchmarks", "shards", "--size", "toy"])
    monkeypatch.setattr(command, "PAGE", page)
    monkeypatch.setattr(command, "run_all", lambda names, size, *, folder: folders.append(folder) or [])
    assert command.main() == 0
    assert len(folders) == 1
    assert folders[0] != command.RESULTS
    assert not page.exists()


def test_every_module_is_a_benchmark_of_the_table_or_a_tool():
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == {*BENCHMARKS, *TOOLS}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_measured_files_exist(name):
    assert MODULES[name].MEASURES
    assert [file for file in MODULES[name].MEASURES if not Path(ROOT, file).is_file()] == []
