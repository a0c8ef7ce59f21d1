"""The runs of a table: rows share what decides nothing about their difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.reproduce import ReproduceFlags, table_recipe
from jobs.reproducing.plan import planned
from jobs.reproducing.tables import find_table

ROOT = Path("/runs")


def folders(table: str, scale: str = "synthetic", *, seeds: int = 2, changes: tuple[str, ...] = ()) -> list[tuple]:
    runs = planned(find_table(table), scale, seeds=seeds, root=ROOT, changes=changes)
    assert len({run.name for run in runs}) == len(runs)
    return [(run.recipe.stage_one_run, run.recipe.run_folder) for run in runs]


def test_rows_of_a_head_share_a_segmenter_for_each_seed():
    pairs = folders("maxtron.6")
    assert len(pairs) == 14
    assert len({one for one, _ in pairs}) == 2
    assert len({two for _, two in pairs}) == 14


def test_rows_of_inference_share_all_that_is_trained():
    for table in ("vita.6", "tube_link.8e", "video_kmax.2"):
        pairs = folders(table)
        assert len(pairs) == 8
        assert len(set(pairs)) == 2


def test_rows_of_a_segmenter_have_one_each_and_no_stage_two():
    pairs = folders("maxtron.5")
    assert len({one for one, _ in pairs}) == 16
    assert all(one == two for one, two in pairs)


def test_rows_and_seeds_share_the_segmenter_that_they_start_from():
    runs = planned(find_table("maxtron.5"), "synthetic", seeds=2, root=ROOT)
    starts = {run.row.name: run.start.segmenter_folder for run in runs}
    plain = starts.pop("no within-clip tracking")
    assert {plain} != set(starts.values())
    assert len(set(starts.values())) == 1
    assert all(run.recipe.stage_one.start_from == str(run.start.segmenter_folder) for run in runs)
    assert not any(run.start.stage_one.start_from for run in runs)
    assert all(run.start is None for run in planned(find_table("maxtron.5"), "official", seeds=1, root=ROOT))


def test_tables_with_the_same_segmenter_share_it():
    assert {one for one, _ in folders("maxtron.6")} == {one for one, _ in folders("video_kmax.2")}


def test_official_rows_share_shards_and_segmenters_and_read_the_data_that_is_named():
    runs = planned(find_table("maxtron.1"), "official", seeds=1, root=ROOT, changes=("dataset.root=/data/VIPSeg",))
    assert len({run.recipe.stage_one_run for run in runs}) == 5      # near-online and offline share theirs
    assert {run.recipe.data_root for run in runs} == {Path("/data/VIPSeg")}
    assert [run.row.name for run in runs if run.recipe.stage_two] == [f"offline, {name}" for name in (
        "ResNet-50", "ConvNeXt-L", "ConvNeXtV2-L")]


def test_rows_read_the_shards_of_a_run_that_only_makes_these():
    runs = planned(find_table("maxtron.6"), "synthetic", seeds=2, root=ROOT)
    (shards,) = {run.recipe.shards_of("val").parent for run in runs}
    assert shards.parent not in {folder for pair in folders("maxtron.6") for folder in pair}


def test_a_seed_is_one_of_all_stages():
    first, second = (run.recipe for run in planned(find_table("maxtron.6"), "synthetic", seeds=2, root=ROOT)[:2])
    for part in (first.stage_one, first.stage_two):
        assert (part.fit.seed, part.input.seed) == (0, 0)
    for part in (second.stage_one, second.stage_two):
        assert (part.fit.seed, part.input.seed) == (1, 1)


def test_a_row_that_only_counts_has_one_run():
    assert len(planned(find_table("video_kmax.3"), "official", seeds=3, root=ROOT)) == 12
    assert len(planned(find_table("vita.4"), "official", seeds=3, root=ROOT)) == 3


def test_a_table_that_cannot_be_run_says_why():
    table = find_table("tube_link.8f")
    lacking = tuple(row for row in table.rows if row.missing)
    others = replace(table, rows=lacking, reference=lacking[0].name)
    with pytest.raises(ValueError, match=r"no row of tube_link\.8f can be run at official scale: .*DeepSORT"):
        planned(others, "official", seeds=1, root=ROOT)
    with pytest.raises(ValueError, match="no synthetic version"):
        table_recipe(ReproduceFlags(table="maxtron.1", scale="synthetic"))
    with pytest.raises(ValueError, match="at least one"):
        table_recipe(ReproduceFlags(table="maxtron.5", seeds=0))
