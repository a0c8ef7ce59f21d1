"""A table at toy size, from nothing to its verdicts: killed, started again, and shared with another table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from jobs import reproduce
from jobs.reproduce import ReproduceFlags, table_recipe
from jobs.reproducing.runs import RowWorker
from jobs.reproducing.tables import find_table
from jobs.verb import resolved

pytestmark = pytest.mark.slow

TOY = ("cluster.in_process=true", "world.preset=easy", "world.frames=6", "world.videos_train=6", "world.videos_val=2",
       "world.height=64", "world.width=64", "stage_one.input.augment.size=[64,64]", "stage_one.fit.steps=2",
       "stage_two.fit.steps=2", "stage_two.input.clips=3",
       'inference.panoptic={"thing":0.0,"stuff":0.0,"pixel":0.05,"overlap":0.0}')
TRACKS = (*(setting for setting in TOY if not setting.startswith(("stage_two", "inference.panoptic"))),
          "world.videos_train=3")
TUBES = (*TRACKS, "stage_one.linking.points=64", "inference.panoptic.score=0.0", "inference.panoptic.overlap=0.0")
ROWS = ("N_c = 4, trajectory attention, rates 1, 2, 3", "(a) no temporal ASPP", "(c) N_c = 6")


@pytest.fixture
def three_rows(monkeypatch):
    """Table 6 of MaXTron with three of its rows."""
    table = find_table("maxtron.6")
    small = replace(table, rows=tuple(map(table.row, ROWS)))
    monkeypatch.setattr(reproduce, "find_table", lambda name: small if name == small.id else find_table(name))


def run(flags: ReproduceFlags) -> dict:
    return reproduce.main(resolved(table_recipe(flags)), flags)


@pytest.mark.long
def test_a_table_that_is_killed_goes_on_where_it_was(three_rows, tmp_path, monkeypatch, capsys):
    flags = ReproduceFlags(table="maxtron.6", seeds=1, folder=str(tmp_path / "all"), set=TOY)
    score = RowWorker.score
    calls = []

    def killed(worker, piece, metrics):
        calls.append(piece)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(worker, piece, metrics)

    monkeypatch.setattr(RowWorker, "score", killed)
    with pytest.raises(KeyboardInterrupt):
        run(flags)
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "all/runs").glob("*/stage_*/model/*")}
    assert len(models) == (1 + 3) * 2       # one segmenter and three heads, weights and card
    summary = run(flags)
    assert (summary["runs"], summary["new"], summary["failed"]) == (3, 2, 0)
    assert models == {path: path.stat().st_mtime_ns for path in (tmp_path / "all/runs").glob("*/stage_*/model/*")}
    assert len(list((tmp_path / "all/runs").glob("data-*/shards/train"))) == 1

    folder = tmp_path / "all/tables/maxtron.6"
    rows = {row["row"]: row for row in csv.DictReader((folder / "table.csv").read_text().splitlines())}
    assert tuple(rows) == ROWS
    assert [row["sign"] for row in rows.values()] == ["reference", "undecided", "equal in the paper"]
    scores = [json.loads(path.read_text())["vpq"] for path in folder.glob("scores/*/offline/scores.json")]
    assert sorted(float(row["ours"]) for row in rows.values()) == sorted(scores)
    assert (folder / "table.png").stat().st_size > 1000
    assert "| 46.5 |" in (folder / "table.md").read_text()
    assert "\nSigns: 0 held, 0 not held, 1 undecided." in capsys.readouterr().out
    before = (folder / "table.csv").read_text()
    assert run(flags)["new"] == 0
    assert (folder / "table.csv").read_text() == before
    assert_recorded(folder)

    # Another table on the same world reads the same shards; its segmenter has the same settings, so it is there too.
    other = run(replace(flags, table="video_kmax.2"))
    assert (other["new"], other["failed"]) == (4, 0)
    assert len(list((tmp_path / "all/runs").glob("stage_one-*"))) == 1


def assert_recorded(folder) -> None:
    """The table is a run of MLflow, and every row and seed a run below it."""
    stored = json.loads((folder / "tracking.json").read_text())
    client = MlflowClient(tracking_uri=stored["uri"])
    (experiment,) = (found for found in client.search_experiments() if found.name == "maxtron-on-ray")
    verbs = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{stored['parent']}'")
    below = [trial for verb in verbs for trial in client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{verb.info.run_id}'")]
    assert {trial.data.params["row"] for trial in below} == set(ROWS)
    assert all("vpq" in trial.data.metrics for trial in below)


def test_a_row_that_fails_costs_only_itself(three_rows, tmp_path, monkeypatch):
    table = reproduce.find_table("maxtron.6")
    broken = replace(table.rows[1], synthetic=("stage_two.optimizer.lr=1e30",))
    monkeypatch.setattr(reproduce, "find_table", lambda _: replace(table, rows=(table.rows[0], broken)))
    summary = run(ReproduceFlags(table="maxtron.6", seeds=1, folder=str(tmp_path / "all"), set=TOY))
    assert (summary["runs"], summary["new"], summary["failed"]) == (2, 1, 1)
    assert summary["signs"]["(a) no temporal ASPP: vpq"].startswith("failed: stage_two: NotFinite")


@pytest.mark.long
def test_rows_start_from_a_segmenter_that_is_trained_first(tmp_path, monkeypatch):
    table = find_table("maxtron.5")
    first, plain = table.rows[:2]
    monkeypatch.setattr(reproduce, "find_table", lambda _: replace(table, rows=(first, plain)))
    settings = [setting for setting in TOY if not setting.startswith("stage_two")]
    flags = ReproduceFlags(table="maxtron.5", seeds=2, folder=str(tmp_path), set=tuple(settings))
    summary = run(flags)
    assert (summary["runs"], summary["failed"]) == (4, 0)
    logs = [path.read_text() for path in tmp_path.glob("runs/stage_one-*/log.txt")]
    assert len(logs) == 2 + 4
    assert sum("segmenter starts from" in log for log in logs) == 4


@pytest.mark.long
@pytest.mark.parametrize("name", ["tube_link.8b", "tube_link.8c", "tube_link.8f"])
def test_the_rows_of_tube_link_train_and_are_scored(name, tmp_path, monkeypatch):
    check_rows(find_table(name), TUBES, tmp_path, monkeypatch)


@pytest.mark.long
def test_the_rows_of_both_trackers_train_and_are_scored(tmp_path, monkeypatch):
    check_rows(find_table("tube_link.17"), TRACKS, tmp_path, monkeypatch)


@pytest.mark.long
def test_the_rows_of_video_k_net_train_and_are_scored(tmp_path, monkeypatch):
    """Their table has no synthetic version, since its other rows are scored by tracks."""
    table = find_table("tube_link.1")
    decoder = 'stage_one.segmenter.query_decoder={"kind": "knet", "num_queries": 16, "dim": 64, "heads": 4, "ffn": 128}'
    rows = [replace(row, synthetic=(decoder, *row.set[1:])) for row in table.rows if row.name.startswith("Video K-Net")]
    small = replace(table, rows=tuple(rows), reference=rows[0].name, metrics=("vpq",),
                    synthetic=find_table("tube_link.8b").synthetic)
    check_rows(small, TUBES, tmp_path, monkeypatch)


def check_rows(table, settings, folder, monkeypatch) -> None:
    """Every row of the table that has a recipe gets scores, with one seed."""
    rows = [row for row in table.rows if not table.missing(row, "synthetic")]
    monkeypatch.setattr(reproduce, "find_table", lambda _: table)
    summary = run(ReproduceFlags(table=table.id, seeds=1, folder=str(folder), set=settings))
    assert (summary["runs"], summary["failed"]) == (len(rows), 0)
    scored = csv.DictReader((folder / f"tables/{table.id}/table.csv").read_text().splitlines())
    assert {row["row"] for row in scored if row["ours"]} == {row.name for row in rows}
