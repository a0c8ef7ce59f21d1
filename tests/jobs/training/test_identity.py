"""A folder belongs to one training run; versions that add settings still recognise the runs of earlier ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch

from jobs.config import to_json
from jobs.recipes import find_recipe
from jobs.training.identity import DIVERGED, IDENTITY, VERSION, claim_folder, has_identity
from jobs.training.loop import NotFinite, refuse_infinite_weights
from pipeline.errors import Mismatch
from pipeline.foreign_files import own_json


@dataclass(frozen=True, kw_only=True)
class Settings:
    lr: float = 0.1
    steps: int = 6
    windows: tuple[int, ...] = (1, 2)


OURS = {"stage": Settings(), "shards": "abc"}


def test_the_first_run_in_a_folder_stores_its_identity_and_the_same_run_may_continue(tmp_path):
    for _ in range(2):
        claim_folder(tmp_path, OURS)
    assert own_json(tmp_path / IDENTITY, cure="") == {
        "version": VERSION, "stage": {"lr": 0.1, "steps": 6, "windows": [1, 2]}, "shards": "abc"}
    assert has_identity(tmp_path, OURS)


def test_another_run_is_refused_with_every_differing_field_and_both_values(tmp_path):
    claim_folder(tmp_path, OURS)
    other = {"stage": Settings(lr=0.2), "shards": "def"}
    assert not has_identity(tmp_path, other)
    wanted = (rf"{tmp_path}/identity\.json is of a run with other settings .*"
              r"shards: 'abc' != 'def'; stage\.lr: 0\.1 != 0\.2\. Give this run another")
    with pytest.raises(Mismatch, match=wanted):
        claim_folder(tmp_path, other)
    assert has_identity(tmp_path, OURS)


@pytest.mark.parametrize(("steps", "changes", "finished", "allowed"), [
    (9, {}, True, True), (9, {}, False, False), (3, {}, True, False), (9, {"lr": 0.2}, True, False)])
def test_a_finished_run_may_take_more_steps_and_change_nothing_else(tmp_path, steps, changes, finished, allowed):
    def stage(steps: int, **settings) -> dict:
        return {"stage": {"fit": {"steps": steps}, **settings}}

    claim_folder(tmp_path, stage(6, lr=0.1))
    if finished:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "model.json").write_text("{}")
    longer = stage(steps, **{"lr": 0.1, **changes})
    if allowed:
        claim_folder(tmp_path, longer)
    else:
        with pytest.raises(Mismatch, match=r"stage\.fit\.steps: 6 != "):
            claim_folder(tmp_path, longer)
    assert has_identity(tmp_path, longer) == allowed


@pytest.mark.parametrize("absent", ["lr", "steps", "windows"])
def test_a_setting_that_an_earlier_version_did_not_have_has_its_default(tmp_path, absent):
    stored = {"stage": {"lr": 0.1, "steps": 6, "windows": [1, 2]}, "shards": "abc"}
    del stored["stage"][absent]
    (tmp_path / IDENTITY).write_text(json.dumps(stored))
    assert has_identity(tmp_path, OURS)
    claim_folder(tmp_path, OURS)
    changed = {"lr": 0.3, "steps": 7, "windows": (3,)}[absent]
    assert not has_identity(tmp_path, {**OURS, "stage": replace(Settings(), **{absent: changed})})


def test_settings_that_cannot_be_read_any_more_are_said_to_be_of_an_older_version(tmp_path):
    (tmp_path / IDENTITY).write_text(json.dumps({"stage": {"momentum": 0.9}, "shards": "abc"}))
    with pytest.raises(Mismatch, match=r"identity.json are of an older version.*'momentum'.*--set folder"):
        claim_folder(tmp_path, OURS)


@pytest.mark.parametrize("name", ["tiny", "synthetic_vps", "vipseg_video_kmax_r50_near_online", "ovis_vita_r50"])
def test_the_stages_of_recipes_are_recognised_from_their_json(tmp_path, name):
    identity = {"stage": find_recipe(name).stage_one}
    claim_folder(tmp_path, identity)
    assert has_identity(tmp_path, identity)


@pytest.mark.parametrize(("version", "same"), [({}, True), ({"version": VERSION}, False)])
def test_a_head_of_version_one_trained_its_norms_whatever_the_setting_said(tmp_path, version, same):
    stage = find_recipe("tiny").stage_two
    assert stage.head.train_norms
    stored = {**version, "stage": to_json(replace(stage, head=replace(stage.head, train_norms=False)))}
    (tmp_path / IDENTITY).write_text(json.dumps(stored))
    assert has_identity(tmp_path, {"stage": stage}) == same


def test_a_run_that_diverged_is_trained_anew_with_other_settings_and_its_leftovers_are_removed(tmp_path):
    claim_folder(tmp_path, OURS)
    (tmp_path / "checkpoints" / "step-0000002").mkdir(parents=True)
    (tmp_path / DIVERGED).write_text("{}")
    cooler = {**OURS, "stage": Settings(lr=0.01)}
    claim_folder(tmp_path, cooler, left_by_training=("checkpoints",))
    assert has_identity(tmp_path, cooler)
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / DIVERGED).exists()


def test_weights_that_are_not_finite_are_never_saved():
    model = torch.nn.Linear(2, 2)
    refuse_infinite_weights(model, 5)
    with torch.no_grad():
        model.bias[1] = float("nan")
    with pytest.raises(NotFinite, match=r"1 weights are not finite after step 5, first bias"):
        refuse_infinite_weights(model, 5)
