"""The benchmark tool: honest ratios, peaks, and rows that last."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks import harness
from benchmarks.harness import Results, peak_megabytes
from benchmarks.rows import digest, machine, read_rows


def test_a_baseline_that_takes_twice_as_long_has_the_ratio_two(tmp_path, capsys, monkeypatch):
    clock = [0.0]

    def spend(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    row = Results("test", folder=tmp_path).compare("spending", ours=lambda: spend(0.25), baseline=lambda: spend(0.5),
                                                   repeats=3)
    assert (row.value, row.low, row.high, row.repeats) == (2, 2, 2, 3)
    assert (row.detail["ours_seconds"], row.detail["baseline_seconds"]) == (0.25, 0.5)
    assert "spending" in capsys.readouterr().out


def test_every_result_adds_a_row_to_the_machines_file(tmp_path):
    results = Results("test", measures=("benchmarks/harness.py",), folder=tmp_path)
    results.compare("first", ours=list, baseline=list, repeats=1)
    results.add("second", [3.0, 1.0, 2.0], "MB", videos=4)
    assert (tmp_path / f"{machine()}.jsonl").exists()
    first, second = read_rows(tmp_path)
    assert [first, second] == results.rows
    assert (second.value, second.low, second.high, second.unit, second.detail) == (2, 1, 3, "MB", {"videos": 4})
    assert first.code == digest(("benchmarks/harness.py",))
    assert {len(row.commit.removesuffix("+")) for row in (first, second)} <= {0, 7}


@pytest.mark.parametrize("broken", ['{"benchmark": "one"', '{"benchmark": "one"}', "[]", "\udcff"])
def test_a_result_that_cannot_be_read_is_named_by_file_and_line(tmp_path, broken):
    Results("test", folder=tmp_path).add("whole", 1.0, "MB")
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + broken.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(ValueError, match=rf"{file.name}, line 2, is not a result .* delete the line"):
        read_rows(tmp_path)


def test_both_take_turns_after_one_warm_up_each(tmp_path):
    calls = []
    Results("test", folder=tmp_path).compare("turns", ours=lambda: calls.append("o"),
                                             baseline=lambda: calls.append("b"), repeats=2)
    assert "".join(calls) == "ob" + "ob" + "bo"


def test_the_results_of_the_warm_up_calls_must_agree(tmp_path):
    def agree(ours: int, baseline: int) -> None:
        assert ours == baseline

    results = Results("test", folder=tmp_path, repeats=1)
    results.compare("same", ours=lambda: 1, baseline=lambda: 1, agree=agree)
    with pytest.raises(AssertionError):
        results.compare("other", ours=lambda: 1, baseline=lambda: 2, agree=agree)
    assert [row.name for row in read_rows(tmp_path)] == ["same"]


def test_the_peak_of_a_call_is_what_it_holds_at_once():
    peak = peak_megabytes(lambda: torch.ones(25_000_000).sum())       # 100 MB of float32
    if peak is None:
        pytest.skip("this system does not tell the highest memory of a process")
    assert 90 < peak < 130
    assert peak_megabytes(lambda: None) < 10
