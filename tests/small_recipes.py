"""Recipes made small enough for a step in a test: every part and every layer stays, only widths and sizes shrink."""

from __future__ import annotations

import dataclasses
from typing import Any

from model.backbone import BackboneConfig

# Fields by name, wherever they stand in a recipe. What is not here stays: numbers of layers and blocks, heads, kinds.
SMALL = {
    "num_classes": 5, "num_queries": 8, "dim": 32, "embedding": 8, "ffn": 32, "points": 4, "count": 64,
    "frame_queries": 8, "pixel_dim": 32,
    "widths": (32, 16, 8, 8), "width": 8, "fine_widths": (8, 8),
    "pixel_samples": 64, "semantic_samples": 64, "start_from": "",
}
STUFF = (0, 1, 3)       # of the five classes, for a recipe that reserves queries

# A network without global response norm, or with it, for the large ones of its family.
FAMILIES = {"resnet": "test_resnet", "convnextv2": "convnextv2_atto", "convnext": "test_convnext2",
            "swin": "swin_tiny_patch4_window7_224"}


def small(config: Any) -> Any:
    """A recipe, or any part of one, with small numbers."""
    if isinstance(config, BackboneConfig):
        families = [small for family, small in FAMILIES.items() if config.name.startswith(family)]
        return dataclasses.replace(config, name=families[0] if families else config.name, pretrained=False)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    changed = {name: small(value) if dataclasses.is_dataclass(value) else SMALL.get(name, value)
               for name, value in values.items() if value is not None}
    if values.get("size"):                  # odd where the recipe's is
        changed["size"] = tuple(64 + side % 2 for side in values["size"])
    if values.get("train") is False:        # there is nothing to start from and keep
        changed["train"] = True
    if values.get("stuff_classes"):
        changed["stuff_classes"] = STUFF
    return dataclasses.replace(config, **changed)
