"""The benchmark tool: honest ratios, peaks, and rows that last."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import harness
from benchmarks.harness import compare, machine, peak_megabytes


def test_a_baseline_that_takes_twice_as_long_has_the_ratio_two(tmp_path, capsys, monkeypatch):
    clock = [0.0]

    def spend(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(harness, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    row = compare("spending", ours=lambda: spend(0.25), baseline=lambda: spend(0.5), repeats=3, folder=tmp_path)
    assert (row.ours_seconds, row.baseline_seconds, row.ratio) == (0.25, 0.5, 2)
    assert "spending" in capsys.readouterr().out


def test_every_comparison_adds_a_row_to_the_machines_file(tmp_path):
    for name in ("first", "second"):
        compare(name, ours=list, baseline=list, repeats=1, folder=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / f"{machine()}.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == ["first", "second"]
    assert {"ours_seconds", "baseline_seconds", "ratio", "machine", "threads", "date"} <= rows[0].keys()


def test_both_take_turns_after_one_warm_up_each(tmp_path):
    calls = []
    compare("turns", ours=lambda: calls.append("o"), baseline=lambda: calls.append("b"), repeats=2, folder=tmp_path)
    assert "".join(calls) == "ob" + "ob" + "bo"


def test_the_peak_of_a_call_is_what_it_holds_at_once():
    peak = peak_megabytes(lambda: torch.ones(25_000_000).sum())       # 100 MB of float32
    if peak is None:
        pytest.skip("this system does not tell the highest memory of a process")
    assert 90 < peak < 130
    assert peak_megabytes(lambda: None) < 10
