"""Finished models: building them from their card, loading their weights, and saying what made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jobs.config import config_digest, from_json, to_json
from jobs.recipes.schema import Recipe
from jobs.training.checkpoint import code_version, load_weights, read_card
from model.cross_clip import CrossClipConfig, build_cross_clip_head
from model.labels import ClassTable
from model.segmenters import SegmenterConfig, build_segmenter
from pipeline.errors import Mismatch


def segmenter_card(recipe: Recipe, classes: ClassTable, shards: str) -> dict[str, Any]:
    """What `model.json` of a segmenter says: enough to rebuild it, and where it comes from."""
    stage = recipe.stage_one
    return {"kind": "segmenter", "config": to_json(without_download(stage.segmenter)),
            "classes": classes.to_json(), "input_size": list(stage.input.augment.size),
            "clip_frames": stage.segmenter_frames, "shards_fingerprint": shards, **_made_by(recipe)}


def head_card(recipe: Recipe, segmenter: dict[str, Any], cache: str) -> dict[str, Any]:
    """What `model.json` of a cross-clip head says; it names the one segmenter it belongs to."""
    return {"kind": "head", "config": to_json(recipe.stage_two.head), "cache_fingerprint": cache,
            "segmenter_sha256": segmenter["weights_sha256"], **_made_by(recipe)}


def load_segmenter(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A finished segmenter in evaluation mode, frozen, and its card."""
    card = _card(folder, "segmenter")
    config = without_download(from_json(SegmenterConfig, card["config"]))     # earlier cards kept pretrained=True
    return _frozen(build_segmenter(config), folder), card


def load_head(folder: Path, *, segmenter_card: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """A finished cross-clip head, frozen. Raises Mismatch when it was trained on another segmenter's queries."""
    card = _card(folder, "head")
    if card["segmenter_sha256"] != segmenter_card["weights_sha256"]:
        raise Mismatch(f"the head in {folder} belongs to segmenter {card['segmenter_sha256'][:12]}..., but "
                         f"{segmenter_card['weights_sha256'][:12]}... is to be used with it; train it again "
                         "(cache_queries, train_stage_two) or choose its own segmenter")
    return _frozen(build_cross_clip_head(from_json(CrossClipConfig, card["config"])), folder), card


def known_classes(folder: Path, *, expected: ClassTable | None = None) -> ClassTable:
    """The classes of the finished segmenter in `folder`.

    Raises ValueError where they are not the expected ones, or unknown since the model was converted without its data.
    """
    classes = ClassTable.from_json(_card(folder, "segmenter")["classes"])
    if not classes.has_names:
        raise ValueError(f"the segmenter in {folder} was converted without a data set: its classes have no names, and "
                         "stuff counts as things. Convert it again with --set dataset.root=FOLDER")
    if expected is not None and classes != expected:
        raise ValueError(f"the segmenter in {folder} was trained on the classes of {classes.name}, these shards have "
                         f"those of {expected.name}; use shards of the same data set")
    return classes


def lineage(folder: Path) -> dict[str, Any]:
    """What a registered version of a finished model carries beside its inputs: its weights' digest and the code."""
    card = read_card(folder)
    return {"sha256": card["weights_sha256"], "code": card["code"]["commit"], "code_changed": card["code"]["changed"]}


def without_download(config: SegmenterConfig) -> SegmenterConfig:
    """The same network, whose weights come from a file of ours: timm need not fetch any."""
    return replace(config, backbone=replace(config.backbone, pretrained=False))


def untrained_segmenter(recipe: Recipe) -> nn.Module:
    """The segmenter as its seed makes it, frozen: the score to be better than."""
    torch.manual_seed(recipe.stage_one.fit.seed)
    return build_segmenter(recipe.stage_one.segmenter).eval().requires_grad_(False)


def _card(folder: Path, kind: str) -> dict[str, Any]:
    card = read_card(folder)
    if card["kind"] != kind:
        raise ValueError(f"{folder} holds a {card['kind']}, a {kind} is needed; check the recipe's folders")
    return card


def _frozen(module: nn.Module, folder: Path) -> nn.Module:
    module.load_state_dict(load_weights(folder))
    return module.eval().requires_grad_(False)


def _made_by(recipe: Recipe) -> dict[str, Any]:
    return {"recipe": recipe.name, "recipe_digest": config_digest(recipe), "code": code_version()}
