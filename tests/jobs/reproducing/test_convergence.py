"""The curves of a table: the scores that the trainings of its rows made on the way."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import reproduce
from jobs.reproduce import ReproduceFlags, table_recipe
from jobs.reproducing.convergence import mean_of
from jobs.reproducing.tables import find_table
from jobs.verb import resolved
from pipeline.images import decode_image

TOY = ("cluster.in_process=true", "world.preset=easy", "world.frames=6", "world.videos_train=6", "world.videos_val=2",
       "world.height=64", "world.width=64", "stage_one.input.augment.size=[64,64]", "stage_one.fit.steps=2",
       "stage_two.fit.steps=4", "stage_two.input.clips=3", 'stage_two.validation={"every":2}')


@pytest.mark.long
def test_figure_5_of_vita_has_a_curve_for_each_row_and_ends_at_the_score_of_the_head(tmp_path):
    flags = ReproduceFlags(table="vita.figure_5", seeds=1, folder=str(tmp_path), set=TOY)
    summary = reproduce.main(resolved(table_recipe(flags)), flags)
    assert summary["failed"] == 0
    rows = list(csv.DictReader(Path(summary["curves.csv"]).read_text().splitlines()))
    names = [row.name for row in find_table("vita.figure_5").rows]
    assert [(row["row"], row["step"]) for row in rows] == [(name, step) for name in names for step in ("2", "4")]
    scores = [json.loads(path.read_text())["ap"] for path in tmp_path.glob("tables/*/scores/*/offline/scores.json")]
    assert len(scores) == 2
    assert decode_image(Path(summary["curves.png"]).read_bytes()).ndim == 3


@pytest.mark.slow
def test_a_table_that_is_not_scored_on_the_way_has_no_curves(tmp_path, monkeypatch):
    table = find_table("video_kmax.2")
    monkeypatch.setattr(reproduce, "find_table", lambda _: replace(table, rows=table.rows[-1:]))
    flags = ReproduceFlags(table=table.id, seeds=1, folder=str(tmp_path), set=TOY[:-3])
    summary = reproduce.main(resolved(table_recipe(flags)), flags)
    assert summary["failed"] == 0
    assert "curves.png" not in summary


def test_the_mean_is_over_the_steps_that_all_seeds_have():
    assert mean_of([((1, 2.0), (2, 4.0)), ((1, 4.0), (2, 6.0), (3, 9.0))]) == ((1, 3.0), (2, 5.0))
