"""A system in one folder: the finished models as in the folder of a run, and `system.json`, how they make results.

    system.json                       mode, inference settings, digests of the weights
    stage_one/model                   model.safetensors and model.json of the segmenter
    stage_two/model                   of the cross-clip head, in mode offline
    stage_two/links/model             of learned links, where inference.association=links
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from jobs.config import from_json, to_json
from jobs.models import load_system, read_card, refuse_other_weights
from jobs.recipes.schema import Mode, Recipe
from model.inference import InferenceConfig
from pipeline.errors import BadInput, Mismatch
from pipeline.files import atomic_write, digest
from pipeline.foreign_files import own_json
from pipeline.seals import sealed
from pipeline.system import System

SCHEMA = 1
CARD = "system.json"
FILES = ("model.safetensors", "model.json")
PLACES = {"segmenter": "stage_one/model", "head": "stage_two/model", "links": "stage_two/links/model"}
CURE = "Copy or download the folder of the system again."


def parts_of(recipe: Recipe, mode: Mode) -> dict[str, Path]:
    """Place in a bundle -> folder of the finished model, of every model that a mode reads."""
    parts = {PLACES["segmenter"]: recipe.segmenter_folder}
    if mode == "offline":
        parts[PLACES["head"]] = recipe.head_folder
    if recipe.inference.association.kind == "links":
        parts[PLACES["links"]] = recipe.links_folder
    return parts


def write_bundle(folder: Path, recipe: Recipe, mode: Mode) -> dict[str, Any]:
    """Copy the models of a recipe into an empty folder; returns the content of `system.json`, which is written last.

    Raises FileNotFoundError for a model that is not finished, Mismatch for weights that are not those of their card.
    """
    weights = {}
    for place, source in parts_of(recipe, mode).items():
        weights[place] = read_card(source)["weights_sha256"]
        refuse_other_weights(source)
        (folder / place).mkdir(parents=True)
        for name in FILES:
            shutil.copyfile(source / name, folder / place / name)
    card = {"schema": SCHEMA, "recipe": recipe.name, "mode": mode, "inference": to_json(recipe.inference),
            "weights": weights}
    card |= {"digest": digest({"mode": mode, "inference": card["inference"], "weights": weights})}
    atomic_write(folder / CARD, json.dumps(sealed(card), indent=1, sort_keys=True).encode())
    return card


def open_bundle(folder: Path | str, *, device: str = "cpu") -> System:
    """The system in a bundle. Nothing is unpickled.

    Raises FileNotFoundError without `system.json`, BadInput for one that is damaged, and Mismatch for models that are
    not the ones it lists, or one of another version.
    """
    folder = Path(folder)
    if not (folder / CARD).is_file():
        raise FileNotFoundError(f"{folder} holds no system ({CARD} is missing); python -m jobs.hand_over writes one")
    card = own_json(folder / CARD, needs={"mode": str, "inference": dict, "weights": dict}, cure=CURE)
    if card.get("schema") != SCHEMA:
        raise Mismatch(f"{folder / CARD} has schema {card.get('schema')}, this version reads {SCHEMA}: write it again "
                       "with python -m jobs.hand_over")
    if strange := card["weights"].keys() - set(PLACES.values()):
        raise BadInput("strange-place", f"it lists {sorted(strange)[0]!r}, where no model of a system lies.",
                       file=folder / CARD, cure=CURE)
    for place, expected in card["weights"].items():
        if (actual := read_card(folder / place)["weights_sha256"]) != expected:
            raise Mismatch(f"{folder / place} holds weights {actual[:12]}..., but {folder / CARD} lists "
                           f"{expected[:12]}.... {CURE}")
    return load_system(folder, mode=card["mode"], inference=from_json(InferenceConfig, card["inference"]),
                       device=device)
