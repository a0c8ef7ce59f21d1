"""An estimate measures the networks of the recipe and prints the cost of every verb."""

from __future__ import annotations

import json
import math

import pytest

from jobs import estimate
from jobs.recipes import find_recipe
from model.segmenters.video_kmax import VideoKMaxConfig

VERBS = ["make_shards", "train_stage_one", "cache_queries", "train_stage_two", "evaluate, near-online",
         "evaluate, offline"]


@pytest.mark.slow
def test_every_verb_of_a_recipe_has_its_price(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    build = VideoKMaxConfig.build
    built = []
    monkeypatch.setattr(VideoKMaxConfig, "build", lambda config: built.append(config) or build(config))
    told = estimate.main(find_recipe("tiny"))
    assert len(built) == 1      # large ones take seconds
    assert [row["verb"] for row in told["verbs"]] == VERBS
    shown = capsys.readouterr().out
    for row in told["verbs"]:
        assert f"\n{row['verb']} " in shown
        assert min(row["seconds"], row["written"], row["memory_gib"], row["seconds_then"]) > 0
        assert row["machines"] >= 1
    costs = told["costs"]
    assert costs["growth"]["part"] == 1
    assert costs["cache"]["seconds"] > 0.5 * costs["clip"]["seconds"]
    assert math.isfinite(json.loads(json.dumps(told))["costs"]["matrix_rate"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_large_network_is_measured_at_a_part_of_its_size(monkeypatch):
    monkeypatch.setattr("jobs.estimating.rehearsal.SECONDS", 0.0)      # so every network is too large
    told = estimate.main(find_recipe("tiny"))
    assert told["costs"]["growth"]["part"] == 2
    assert min(row["seconds"] for row in told["verbs"]) > 0
    assert told["costs"]["step"]["sample"]["memory"] < 3      # GiB: the state of the optimizer does not grow


@pytest.mark.long
@pytest.mark.parametrize("name", ["tiny_vis", "tiny_vita"])
def test_other_families_are_measured_too(name):
    told = estimate.main(find_recipe(name), videos=1000, frames=10, gpus=2, cpus=8)
    assert told["amounts"]["videos"]["train"] == 1000
    assert min(row["seconds"] for row in told["verbs"]) > 0


@pytest.mark.parametrize("wrong", [{"videos": 0}, {"frames": -3}, {"gpus": -1}, {"network_gbit": 0.0},
                                   {"storage_gb": math.nan}, {"gpu_tflops": math.inf}])
def test_an_amount_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=f"--{next(iter(wrong))}".replace("_", "-")):
        estimate.main(find_recipe("tiny"), **wrong)
