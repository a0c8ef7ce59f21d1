"""Scores during training: curves, the best weights, an early end, and a resume that changes none of them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from jobs.cluster import ClusterConfig
from jobs.training.checkpoint import BEST, whole_state
from jobs.training.checkpoint_folders import checkpoints
from jobs.training.loop import FitConfig
from jobs.training.trainer import Stage, TrainingJob, train, train_in_memory
from jobs.training.validation import Validation, Validator
from tests.jobs.training.falling import falling_stage

BEST_AT = -0.85         # the weight falls by about RATE a step from 0 on
FIT = FitConfig(steps=40, log_every=10, checkpoint_every=4)


def stage(*, patience: int, dies_at: int | None = None) -> Stage:
    def score(head: nn.Module) -> dict[str, float]:
        assert not head.training
        return {"vpq": -abs(head.weight.item() - BEST_AT), "other": 1.0}

    return falling_stage(dies_at=dies_at, fit=FIT,
                         validation=Validation(score=score, every=2, number="vpq", patience=patience))


def job(folder: Path, **settings) -> TrainingJob:
    return TrainingJob(build=partial(stage, **settings), folder=folder, cluster=ClusterConfig(in_process=True), fit=FIT,
                       record=None, keeps_best=settings["patience"] > 0)


def test_training_ends_when_scores_get_no_better_and_keeps_the_best_weights(tmp_path):
    weights = train(job(tmp_path, patience=3), identity={"a": 1})
    assert weights["weight"].item() == pytest.approx(-0.8, abs=0.02)        # step 8; scored every second step
    last = checkpoints(tmp_path)[-1]
    state = whole_state(last)
    assert state["step"] == 14
    assert [step for step, _ in state["validation"]] == [2, 4, 6, 8, 10, 12, 14]
    assert (last / BEST).is_file()
    again = train(job(tmp_path, patience=3, dies_at=0), identity={"a": 1})      # nothing is trained any more
    assert again["weight"].equal(weights["weight"])


def test_a_training_that_is_killed_and_resumed_ends_as_an_undisturbed_one(tmp_path):
    expected = train(job(tmp_path / "undisturbed", patience=3), identity={"a": 1})
    for dies_at in (6, 11, 13):
        with pytest.raises(KeyboardInterrupt):
            train(job(tmp_path / "killed", patience=3, dies_at=dies_at), identity={"a": 1})
    resumed = train(job(tmp_path / "killed", patience=3), identity={"a": 1})
    assert resumed["weight"].equal(expected["weight"])
    assert whole_state(checkpoints(tmp_path / "killed")[-1])["validation"] == whole_state(
        checkpoints(tmp_path / "undisturbed")[-1])["validation"]


def test_without_patience_all_steps_are_taken_and_the_last_weights_are_kept(tmp_path, capsys):
    weights = train(job(tmp_path, patience=0), identity={"a": 1})
    unscored = replace(stage(patience=0), validation=None)
    expected, _ = train_in_memory(lambda: unscored, FIT, device=torch.device("cpu"))
    assert weights["weight"].equal(expected["weight"])
    assert not (checkpoints(tmp_path)[-1] / BEST).exists()
    assert "step 00002 scores, from the cache: vpq -0.7, other 1.0" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40]


def test_in_memory_it_ends_and_keeps_the_same_weights(tmp_path):
    expected = train(job(tmp_path, patience=3), identity={"a": 1})
    weights, reports = train_in_memory(partial(stage, patience=3), FIT, device=torch.device("cpu"))
    assert weights["weight"].equal(expected["weight"])
    assert reports[-1].step == 14


def test_fewer_switches_are_better_and_scores_that_are_missing_do_not_count():
    scores = iter([{"switches": 5}, {"switches": 3}, {"switches": None}, {"switches": 4}, {"switches": 3}])
    validation = Validation(score=lambda model: next(scores), every=1, number="switches", lower_is_better=True,
                            patience=2)
    validator = Validator(validation)
    model = nn.Linear(1, 1)
    over = []
    for step in range(5):
        validator(step, model)
        over.append(validator.is_over)
    assert over == [False, False, False, False, True]       # the first of equal scores is the best
    assert validator.history == [[0, 5], [1, 3], [3, 4], [4, 3]]
