"""`promote` compares the evaluation that the recipe names, and refuses what is no result of a finished model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from jobs import promote
from jobs.models import save_model, segmenter_card, untrained_segmenter
from jobs.promote import PromoteLine
from pipeline.datasets.synthetic import world_classes
from tests.runs import scored, tiny_run

SCORES = {"mode": "near_online", "vpq": 40.0, "switches": 3, "vpq_by_window": {"12": 30.0}, "videos": 2}


@pytest.fixture
def run(tmp_path):
    recipe = tiny_run(tmp_path / "run", stage_two=None)
    save_model(recipe.segmenter_folder, untrained_segmenter(recipe).state_dict(),
               segmenter_card(recipe, world_classes(recipe.world), shards="abc"))
    for mode in ("near_online", "untrained"):
        folder = recipe.scores_root / mode
        folder.mkdir(parents=True)
        (folder / "scores.json").write_text(json.dumps(SCORES))
    return recipe


def test_the_scores_of_the_run_decide_and_describe_the_champion(run, capsys):
    said = promote.main(run, PromoteLine(metric="vpq_k12"))
    assert said["promotion"] == "version 1 of segmenter is the champion: 30.00 vpq_k12"
    assert said["promotion"] in capsys.readouterr().out
    client = MlflowClient(registry_uri=f"sqlite:///{run.run_folder.parent / 'tracking.db'}")
    version = client.get_model_version_by_alias("segmenter", "champion")
    assert "vpq: 40.00" in version.description
    assert str(run.run_folder) in version.description


def test_what_cannot_be_promoted_is_named_with_the_cure(run):
    with pytest.raises(ValueError, match=r"Set --metric to one of vpq, switches, .*vpq_k12"):
        promote.main(run, PromoteLine(metric="ap"))
    with pytest.raises(ValueError, match="a reference, not of a finished model"):
        promote.main(scored(run, mode="untrained"), PromoteLine())
    with pytest.raises(FileNotFoundError, match=r"python -m jobs\.evaluate --recipe tiny"):
        promote.main(replace(run, folder=str(run.run_folder.parent / "other")), PromoteLine())
