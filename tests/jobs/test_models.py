"""A finished model is whole: it is rebuilt from its folder alone, without a network."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from jobs import models
from jobs.config import to_json
from jobs.models import is_finished, load_segmenter, load_weights, read_card, save_model, segmenter_card
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from model.backbone import load_timm
from model.labels import ClassInfo, ClassTable
from pipeline.errors import BadInput, Mismatch
from pipeline.files import digest
from tests.storm.small_disk import disk_of

CLASSES = ClassTable("two", (ClassInfo(0, "cat", True, (1, 1, 1)), ClassInfo(1, "sky", False, (2, 2, 2))))


def pretrained_recipe() -> Recipe:
    """The tiny recipe, with a backbone that starts from timm's weights."""
    recipe = find_recipe("tiny")
    one = recipe.stage_one
    backbone = replace(one.segmenter.backbone, pretrained=True)
    return replace(recipe, stage_one=replace(one, segmenter=replace(one.segmenter, backbone=backbone)))


@pytest.mark.parametrize("old_card", [False, True])
def test_a_finished_segmenter_fetches_no_weights(tmp_path, old_card, monkeypatch):
    fetches = []
    timm = load_timm()
    create = timm.create_model

    def create_without_network(name: str, *, pretrained: bool, **options):
        fetches.append(pretrained)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", create_without_network)
    recipe = pretrained_recipe()
    trained = recipe.stage_one.segmenter.build()
    card = segmenter_card(recipe, CLASSES, "shards")
    assert not card["config"]["backbone"]["pretrained"]
    if old_card:
        card["config"] = to_json(recipe.stage_one.segmenter)
    save_model(tmp_path, trained.state_dict(), card)
    loaded, _ = load_segmenter(tmp_path)
    assert fetches == [True, False]
    weights = loaded.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in trained.state_dict().items())


def test_a_finished_model_knows_its_weights(tmp_path):
    model = nn.Linear(3, 2)
    save_model(tmp_path, model.state_dict(), {"kind": "segmenter"})
    assert read_card(tmp_path)["kind"] == "segmenter"
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in load_weights(tmp_path).items())
    save_model(tmp_path / "other", nn.Linear(1, 1).state_dict(), {"kind": "head"})
    (tmp_path / "other" / "model.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(Mismatch, match="do not belong together"):
        load_weights(tmp_path)


@pytest.mark.parametrize("damage", ["changed", "missing", "a folder"])
def test_a_model_without_its_weights_is_not_finished_and_is_named(tmp_path, capsys, damage):
    model = nn.Linear(3, 2)
    save_model(tmp_path, model.state_dict(), {"kind": "segmenter", "identity": digest({"a": 1})})
    assert is_finished([tmp_path], {"a": 1})
    assert not is_finished([tmp_path], {"a": 2})
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(content[:-1] + b"x")
    elif damage == "a folder":
        path.mkdir()
    assert not is_finished([tmp_path], {"a": 1})
    assert f"{path} is missing or damaged" in capsys.readouterr().out
    with pytest.raises((FileNotFoundError, Mismatch), match=r"run the training verb again") as raised:
        load_weights(tmp_path)
    assert str(path) in str(raised.value)


def test_a_full_disk_leaves_no_half_model_and_names_the_file(tmp_path):
    with disk_of(1000), pytest.raises(OSError, match=re.escape(str(tmp_path / "model.safetensors"))):
        save_model(tmp_path, nn.Linear(30, 30).state_dict(), {"kind": "segmenter"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_used(tmp_path, value, monkeypatch):
    weights = {"layer.weight": torch.ones(3), "layer.bias": torch.tensor([1.0, value])}
    with pytest.raises(BadInput, match=r"1 of its weights are infinite or not a number, first layer\.bias\. Take"):
        save_model(tmp_path / "new", weights, {})
    assert not (tmp_path / "new").exists()
    with monkeypatch.context() as patch:            # as versions did that did not look
        patch.setattr(models, "refuse_infinite", lambda *_: None)
        save_model(tmp_path / "old", weights, {})
    with pytest.raises(BadInput, match=r"old/model\.safetensors: 1 of its weights"):
        load_weights(tmp_path / "old")


def test_a_missing_model_names_the_verb_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="training verb"):
        read_card(tmp_path)


def test_a_folder_in_the_place_of_a_card_is_named_with_the_cure(tmp_path):
    (tmp_path / "model.json").mkdir()
    with pytest.raises(BadInput, match=rf"{tmp_path}/model\.json: it is a folder where a file belongs") as raised:
        read_card(tmp_path)
    assert "Remove it" in str(raised.value)


def test_a_card_whose_settings_do_not_fit_is_named_with_the_cure(tmp_path):
    recipe = find_recipe("tiny")
    one = recipe.stage_one
    model = one.segmenter.build()
    folder = tmp_path / "model"
    save_model(folder, model.state_dict(), segmenter_card(recipe, CLASSES, "shards"))
    card = folder / "model.json"
    unsealed = json.dumps(read_card(folder))        # as an earlier version wrote it
    card.write_text(unsealed.replace('"query_decoder"', '"quesy_decoder"', 1))
    with pytest.raises(ValueError, match=rf"{card}: .*quesy_decoder.*remove it, and run the training again"):
        load_segmenter(folder)
