"""Trials that are ranked without a frame, and a head that is scored while it trains."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from jobs import cache_queries, sweep, train_stage_two
from jobs.models import load_weights
from jobs.recipes.schema import ValidationConfig
from jobs.sweep import SweepFlags
from jobs.sweeping.results import read_trials
from tests.untrained_run import untrained_on_shards

pytestmark = pytest.mark.slow

ALL = 2 * 64 * 64       # pixels of a clip of two frames


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    recipe = untrained_on_shards(tmp_path_factory.mktemp("run") / "run")
    recipe = replace(recipe, stage_two=replace(recipe.stage_two, validation=ValidationConfig(pixels=ALL)))
    cache_queries.main(recipe)
    return replace(recipe, cluster=replace(recipe.cluster, workers=1))


@pytest.mark.long
def test_a_sweep_ranks_by_estimates_and_scores_the_best_trial_on_the_frames(recipe, capsys):
    flags = SweepFlags(recipe="tiny", over=("stage_two.head.layers=1,2",), rank_from_cache=True, metric="miou")
    summary = sweep.main(recipe, flags)
    assert (summary["trials"], summary["new"], summary["failed"]) == (2, 2, 0)
    assert summary["best_on_frames"]["miou"] == pytest.approx(summary["best"]["miou"], abs=0.5)     # from all pixels
    assert "the scores are estimates from the query cache; on the frames, the first row has miou" in (
        capsys.readouterr().out)
    trials = read_trials(recipe.run_folder / "sweeps" / "sweep" / "trials.parquet")
    assert all({"vpq", "vpq_k6", "aq", "idf1", "switches"} <= trial.numbers.keys() for trial in trials)
    assert sweep.main(recipe, flags)["new"] == 0


def test_without_the_cache_for_scores_a_sweep_ends_before_anything_is_trained(recipe):
    flags = SweepFlags(recipe="tiny", over=("stage_two.head.layers=1,2",), rank_from_cache=True, name="none")
    unset = replace(recipe, stage_two=replace(recipe.stage_two, validation=None))
    with pytest.raises(ValueError, match=r"set stage_two\.validation=\{\} and run jobs\.cache_queries"):
        sweep.main(unset, flags)
    other = replace(recipe, stage_two=replace(recipe.stage_two, validation=ValidationConfig(pixels=77)))
    with pytest.raises(ValueError, match=r"Run jobs\.cache_queries with this recipe"):
        sweep.main(other, flags)


def test_scores_during_training_are_curves_and_change_no_weight(recipe, capsys, tmp_path):
    def trained(name, **settings):
        validation = ValidationConfig(pixels=ALL, **settings)
        changed = replace(recipe, folder=str(tmp_path / name), stage_one_from=recipe.folder,
                          stage_two=replace(recipe.stage_two, validation=validation))
        train_stage_two.main(changed)
        return changed

    scored = trained("scored", every=2)
    said = capsys.readouterr().out
    assert all(f"step {step:05d} scores, from the cache: " in said for step in (2, 4, 6))
    unscored = trained("unscored")
    assert "scores, from the cache" not in capsys.readouterr().out
    weights, expected = (load_weights(one.head_folder) for one in (scored, unscored))
    assert all(weights[name].equal(expected[name]) for name in expected)
    assert train_stage_two.main(unscored)["resumed"]
    ended = trained("ended", every=1, patience=1, metric="sq")
    last = json.loads(sorted((ended.run_folder / "stage_two").glob("*/step-*/state.json"))[-1].read_text())
    assert last["ended"] == (last["step"] < recipe.stage_two.fit.steps)
