"""The page of results: up to date, with the spread of every row and a mark on what is older than its code."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks import rows as module
from benchmarks.rows import Row, digest, is_slower, read_rows
from benchmarks.table import PAGE, page
from tests.benchmarks.test_every_benchmark import MODULES

ROW = Row(benchmark="one", name="a thing", value=3.0, unit="x", low=2.5, high=3.5, repeats=3, threads=1, machine="cpu",
          date="2026-01-02T03:04:05+00:00", commit="abc1234", code="",
          detail={"ours_megabytes": 10.0, "baseline_megabytes": 40.0})


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A benchmark of one file, whose content a test may change."""
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "code.py").write_text("one = 1\n")
    return SimpleNamespace(__doc__="About it.\n\nMore.", MEASURES=("code.py",))


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(read_rows(), MODULES), "run: python -m benchmarks --table"


def test_a_row_shows_value_spread_memory_date_and_commit(measured):
    text = page([replace(ROW, code=digest(measured.MEASURES))], {"one": measured})
    assert "## one\n\nAbout it.\n" in text
    assert "| a thing | 3x (2.5 to 3.5) | 0.25 | 2026-01-02, `abc1234`, cpu |" in text


def test_what_a_benchmark_notes_stands_below_its_table(measured):
    measured.NOTES = "It is so, because of this."
    text = page([ROW], {"one": measured})
    assert text.index("| a thing |") < text.index("\n\nIt is so, because of this.\n")


def test_a_row_is_marked_once_the_measured_code_has_changed(measured, tmp_path):
    row = replace(ROW, code=digest(measured.MEASURES))
    assert "cpu **(old)** |" not in page([row], {"one": measured})
    (tmp_path / "code.py").write_text("one = 2\n")
    assert "cpu **(old)** |" in page([row], {"one": measured})
    assert "cpu **(old)** |" not in page([row, replace(row, code=digest(measured.MEASURES))], {"one": measured})


def test_a_benchmark_without_rows_says_so(measured):
    assert "No result is recorded." in page([], {"one": measured})


@pytest.mark.parametrize(("value", "slower"), [(3.2, False), (2.1, False), (1.9, True)])
def test_a_ratio_is_worse_where_it_fell_by_more_than_the_repeats_lie_apart(value, slower):
    now = replace(ROW, value=value, low=value - 0.1, high=value + 0.1)
    assert is_slower(now, ROW) is slower
    assert not is_slower(replace(now, unit="MB"), replace(ROW, unit="MB"))
