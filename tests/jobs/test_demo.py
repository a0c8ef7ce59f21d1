"""The demo runs every verb in order and leaves the summary that is promised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import cache_queries, demo, evaluate, make_shards, train_stage_one, train_stage_two

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize("drawn", [True, False])
def test_the_verbs_run_in_order_and_the_summary_says_what_came_out(finished_run, tmp_path, monkeypatch, capsys, drawn):
    """Every verb is replaced by the last line it printed in the finished run; the untrained score is near-online's."""
    recipe = finished_run.copy(tmp_path / "run")
    called = []

    def scores(recipe):
        called.append(f"evaluate {recipe.evaluation.mode}")
        said = finished_run.said["offline" if recipe.evaluation.mode == "offline" else "near_online"]
        return said if drawn else {**said, "overlays": []}

    for verb in (make_shards, train_stage_one, cache_queries, train_stage_two):
        name = verb.__name__.removeprefix("jobs.")
        monkeypatch.setattr(verb, "main", lambda _, name=name: called.append(name) or finished_run.said[name])
    monkeypatch.setattr(evaluate, "main", scores)
    monkeypatch.setattr(demo, "connect", lambda cluster: None)
    demo.main(recipe)

    assert called == ["make_shards", "evaluate untrained", "train_stage_one", "evaluate near_online", "cache_queries",
                      "train_stage_two", "evaluate offline"]
    summary = json.loads((recipe.run_folder / "summary.json").read_text())
    assert summary.keys() == {"seconds", "untrained", "near_online", "offline", "overlay", "mlflow_run_id", "report"}
    assert summary["untrained"].keys() == {"vpq"}
    for mode in ("near_online", "offline"):
        assert summary[mode].keys() == {"vpq", "vpq_thing", "vpq_stuff", "vpq_by_window", "aq", "idf1", "switches"}
        assert summary[mode]["vpq_by_window"].keys() == {"1", "2", "4", "6", "8", "12"}
    assert Path(summary["report"]) == recipe.run_folder / "report.html"
    assert Path(summary["report"]).stat().st_size > 10_000
    said = capsys.readouterr().out
    assert str(recipe.run_folder / "summary.json") in said
    assert summary["overlay"] == (finished_run.said["offline"]["overlays"][0] if drawn else None)
    assert f"overlay video: {summary['overlay']}" in said
    assert "next: python -m jobs.predict --recipe tiny" in said
