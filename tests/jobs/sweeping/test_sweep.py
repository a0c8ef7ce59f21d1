"""A sweep on a finished run: its trials are the trainings and the scores that the verbs make one by one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from jobs import evaluate, sweep, train_stage_two
from jobs.config import override
from jobs.models import load_weights
from jobs.sweep import SweepFlags
from jobs.sweeping.ranking import ranked, table
from jobs.sweeping.results import read_trials
from jobs.sweeping.trials import head_folder
from jobs.sweeping.workers import Failure, Workers
from tests.runs import here, scored

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]     # the finished run is made on Ray

LAYERS = "stage_two.head.layers=1,2"


def flags(**changes) -> SweepFlags:
    return SweepFlags(recipe="tiny", **{"over": (LAYERS,), **changes})


@pytest.fixture
def recipe(finished_run, tmp_path):
    """The finished run, copied, in this process."""
    recipe = here(finished_run.copy(tmp_path / "run"))
    return replace(recipe, cluster=replace(recipe.cluster, workers=1))


def test_a_trial_is_the_training_and_the_score_of_the_verbs(recipe, tmp_path, capsys):
    summary = sweep.main(recipe, flags(seeds=2))
    assert (summary["trials"], summary["new"], summary["failed"]) == (4, 4, 0)
    best = summary["best"]
    folder = tmp_path / "run" / "sweeps" / "sweep"
    (model,) = (path for path in (folder / "trials").iterdir() if path.is_dir())        # the others are deleted
    seeds = [f"stage_two.{part}.seed={best['seed']}" for part in ("fit", "input")]
    alone = replace(override(recipe, [*best["settings"], *seeds]), folder=str(tmp_path / "alone"),
                    stage_one_from=recipe.folder)
    train_stage_two.main(alone)
    expected = load_weights(alone.head_folder)
    weights = load_weights(head_folder(folder / "trials", model.name))
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(expected[name]) for name in weights)
    scores = evaluate.main(scored(alone, mode="offline"))
    assert best["vpq"] == scores["vpq"]
    # The line that the sweep ends with evaluates the kept model.
    kept = replace(alone, folder=str(model))
    assert f"folder={model}" in capsys.readouterr().out
    assert evaluate.main(scored(kept, mode="offline"))["vpq"] == scores["vpq"]
    assert train_stage_two.main(kept)["resumed"]


def test_started_again_it_runs_only_what_is_missing_and_the_table_is_the_same(recipe):
    first = sweep.main(recipe, flags())
    folder = recipe.run_folder / "sweeps" / "sweep"
    before = (folder / "ranking.txt").read_text()
    records = sorted((folder / "trials").glob("*.json"))
    records[0].unlink()
    records[1].write_bytes(records[1].read_bytes()[:40])        # cut off, as a power cut leaves it
    again = sweep.main(recipe, flags())
    assert (first["new"], again["new"]) == (2, 2)
    assert (folder / "ranking.txt").read_text() == before
    assert sweep.main(recipe, flags())["new"] == 0
    assert sweep.main(recipe, flags(over=("stage_two.head.layers=1,2,3",)))["new"] == 1


def test_a_failing_trial_costs_only_itself(recipe, capsys):
    summary = sweep.main(recipe, flags(over=("stage_two.optimizer.lr=1e-3,1e30", "stage_two.head.layers=1,wrong")))
    assert (summary["trials"], summary["failed"]) == (4, 3)
    assert summary["best"]["settings"] == ("stage_two.optimizer.lr=1e-3", "stage_two.head.layers=1")
    said = capsys.readouterr().out
    assert "failed: NotFinite" in said
    assert "expected int" in said


def test_halving_trains_the_best_third_longer(recipe):
    summary = sweep.main(recipe, flags(over=("stage_two.optimizer.lr=1e-4..1e-2",), scheduler="halving", trials=5))
    assert (summary["new"], summary["trials"]) == (5 + 2 + 1, 1)


def test_the_ranked_table_can_be_made_again_from_mlflow(recipe, tmp_path):
    summary = sweep.main(recipe, flags(seeds=2, metric="vpq_k4"))
    stored = json.loads((recipe.run_folder / "tracking.json").read_text())
    client = MlflowClient(tracking_uri=stored["uri"])
    (experiment,) = (e for e in client.search_experiments() if e.name == recipe.tracking.project)
    verbs = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{stored['parent']}'")
    run = next(run.info.run_id for run in verbs if run.data.tags["verb"] == "sweep_sweep")
    client.download_artifacts(run, "trials.parquet", str(tmp_path))
    rows = ranked(read_trials(tmp_path / "trials.parquet"), "vpq_k4")
    expected = (recipe.run_folder / "sweeps" / "sweep" / "ranking.txt").read_text()
    assert table(rows, "vpq_k4") + "\n" == expected
    trials = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{run}'")
    assert len(trials) == summary["trials"]
    assert all("vpq_k4" in trial.data.metrics and "stage_two.head.layers" in trial.data.params for trial in trials)


def test_only_the_best_model_is_registered(recipe):
    version = sweep.main(recipe, flags(seeds=2))["registered_version"]
    client = MlflowClient(tracking_uri=json.loads((recipe.run_folder / "tracking.json").read_text())["uri"])
    (only,) = client.search_model_versions("name='cross_clip_head'")
    assert only.version == int(version)


class Fragile:
    """A worker whose process can be told to die."""

    def __init__(self) -> None:
        self.calls = 0

    def work(self, piece: int) -> int:
        import os
        self.calls += 1
        if piece == 3:
            os._exit(1)
        if piece == 4:
            raise RuntimeError("four is odd\nbut not really")
        return piece * piece


def test_a_process_that_dies_costs_its_piece_of_work_only(cluster, finished_run):
    config = replace(finished_run.recipe.cluster, in_process=False, actors=2)
    with Workers(Fragile, {}, config) as workers:
        results = dict(workers.each("work", [(n,) for n in range(8)]))
        assert {n: results[n] for n in (0, 1, 2, 5, 6, 7)} == {n: n * n for n in (0, 1, 2, 5, 6, 7)}
        assert "died 3 times (cluster.max_failures=2)" in results[3].error
        assert results[4] == Failure("RuntimeError: four is odd")
        assert dict(workers.each("work", [(9,)])) == {0: 81}        # still warm for the next pieces


def test_a_sweep_on_ray_gives_the_results_of_one_process(cluster, finished_run, tmp_path):
    on_ray = finished_run.copy(tmp_path / "ray")
    on_ray = replace(on_ray, cluster=replace(on_ray.cluster, workers=1, actors=1))
    alone = here(replace(finished_run.copy(tmp_path / "alone"), cluster=on_ray.cluster))
    for recipe in (on_ray, alone):
        sweep.main(recipe, flags())
    texts = [(recipe.run_folder / "sweeps" / "sweep" / "ranking.txt").read_text() for recipe in (on_ray, alone)]
    assert texts[0] == texts[1]
