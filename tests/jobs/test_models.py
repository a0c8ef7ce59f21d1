"""A finished model is whole: it is rebuilt from its folder alone, without a network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jobs.config import to_json
from jobs.models import load_segmenter, segmenter_card
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.training.checkpoint import save_model
from model.backbone import timm
from model.labels import ClassInfo, ClassTable
from model.segmenters import build_segmenter

CLASSES = ClassTable("two", (ClassInfo(0, "cat", True, (1, 1, 1)), ClassInfo(1, "sky", False, (2, 2, 2))))


def pretrained_recipe() -> Recipe:
    """The tiny road, with a backbone that starts from timm's weights."""
    recipe = find_recipe("tiny")
    one = recipe.stage_one
    backbone = replace(one.segmenter.backbone, pretrained=True)
    return replace(recipe, stage_one=replace(one, segmenter=replace(one.segmenter, backbone=backbone)))


@pytest.mark.parametrize("old_card", [False, True])
def test_a_finished_segmenter_fetches_no_weights(tmp_path, old_card, monkeypatch):
    fetches = []
    create = timm.create_model

    def create_without_network(name: str, *, pretrained: bool, **options):
        fetches.append(pretrained)
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", create_without_network)
    recipe = pretrained_recipe()
    trained = build_segmenter(recipe.stage_one.segmenter)
    card = segmenter_card(recipe, CLASSES, "shards")
    assert not card["config"]["backbone"]["pretrained"]
    if old_card:
        card["config"] = to_json(recipe.stage_one.segmenter)
    save_model(tmp_path, trained.state_dict(), card)
    loaded, _ = load_segmenter(tmp_path)
    assert fetches == [True, False]
    weights = loaded.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in trained.state_dict().items())
