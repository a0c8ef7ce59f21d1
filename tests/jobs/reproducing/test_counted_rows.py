"""Rows that count the cost of a network: no data, no training, one run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from jobs import reproduce
from jobs.reproduce import ReproduceFlags, table_recipe
from jobs.verb import resolved

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_table_3_of_video_kmax_is_counted(tmp_path):
    flags = ReproduceFlags(table="video_kmax.3", scale="official", folder=str(tmp_path))
    summary = reproduce.main(resolved(table_recipe(flags)), flags)
    assert (summary["runs"], summary["failed"]) == (12, 0)
    rows = list(csv.DictReader(Path(summary["table.csv"]).read_text().splitlines()))
    counted = [row for row in rows if row["ours"]]
    assert len(counted) == 24
    for row in counted:
        ours, published = float(row["ours"]), float(row["published"])
        assert abs(ours - published) < 0.05 if row["metric"] == "parameters_m" else abs(ours / published - 1) < 0.02
    assert {row["sign"] for row in rows if row["row"].startswith("ConvNeXt-L")} == {"held"}
    assert {row["sign"] for row in rows if row["row"].startswith("Axial")} == {"held"}
