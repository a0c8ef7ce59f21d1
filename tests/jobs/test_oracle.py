"""Scores of the oracle say that it used the labels: in the table, in the files and in what is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from jobs import evaluate, make_shards
from jobs.evaluate import ScoreVideo
from pipeline.datasets.synthetic import SyntheticConfig
from pipeline.shards import ShardSet
from tests.runs import here, scored, tiny_run


def test_scores_of_the_oracle_are_labelled(tmp_path, capsys):
    world = SyntheticConfig(videos_train=1, videos_val=2, frames=4, height=64, width=64)
    recipe = here(scored(tiny_run(tmp_path / "run", world=world), mode="untrained", association="oracle", overlays=0))
    make_shards.main(recipe)
    said = evaluate.main(recipe)
    out = capsys.readouterr().out
    assert "untrained_oracle (uses the labels): a reference, not a result" in out
    assert "untrained_oracle (uses the labels): " in out.splitlines()[-1]
    folder = recipe.run_folder / "scores" / "untrained_oracle"
    assert json.loads((folder / "scores.json").read_text())["uses_labels"] is True
    identity = {"aq", "idf1", "idp", "idr", "switches"}
    assert identity <= said.keys()
    tracked = MlflowClient(said["tracking_uri"]).get_run(said["mlflow_run_id"]).data.metrics
    assert {name: tracked[name] for name in identity & tracked.keys()} == pytest.approx(
        {name: said[name] for name in identity if said[name] is not None})
    assert {"idf1", "switches", "vpq_k1", "vpq_k4"} <= tracked.keys()
    (kept,) = (folder / "predictions").iterdir()
    assert "uses the labels" in (kept / "predictions.json").read_text()


def test_a_video_without_labels_is_named_and_skipped(tmp_path):
    world = SyntheticConfig(videos_train=1, videos_val=1, frames=4, height=64, width=64)
    recipe = scored(tiny_run(tmp_path / "run", world=world), mode="untrained", association="oracle", overlays=0)
    make_shards.main(here(recipe))
    score = ScoreVideo(recipe=recipe)
    stored = ShardSet(recipe.shards_of("val")).videos[0]
    score.shards.videos = (replace(stored, frames=tuple(replace(frame, label=None) for frame in stored.frames)),)
    skipped = score(video=0)
    assert skipped["reason"] == "no-labels"
    assert "leave evaluation.association empty" in skipped["message"].lower()
