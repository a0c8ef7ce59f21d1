"""Finished models on disk: writing and reading them, and making systems of them.

A model is a folder with `model.safetensors` and `model.json`, its card: architecture, recipe, fingerprints, and how it
turns videos into results. So a run's folder can predict by itself:

    from jobs.models import load_system
    results = load_system("runs/demo").predict("my_video.mp4")
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from jobs.code_version import code_version
from jobs.config import config_digest, from_json, to_json
from jobs.console import say
from jobs.recipes.schema import Mode, Recipe
from jobs.training.checkpoint import contiguous
from jobs.training.identity import Identity, has_identity, plain
from jobs.training.tracker import Tracker
from model.association.links import LinkNetwork, LinkNetworkConfig
from model.contracts import QueryShapes
from model.cross_clip import CrossClipConfig
from model.folding import fold_norms
from model.inference import InferenceConfig
from model.labels import ClassTable
from model.segmenters import SegmenterConfig
from pipeline.digests import known_sha256, refuse_other_content
from pipeline.errors import BadInput, Mismatch
from pipeline.file_names import at_home
from pipeline.files import atomic_write, digest, sha256_of
from pipeline.foreign_files import own_json, whole_json
from pipeline.seals import sealed
from pipeline.system import System

SCHEMA = 1
WEIGHTS_CURE = ("Copy the folder of the model again; if it was made here, run the training verb again, which writes it "
                "from its last checkpoint.")


def save_model(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> None:
    """Write a finished model: weights first, then `model.json` = card + sha256 of the weights, which makes it exist.

    Raises OSError naming the file that cannot be written, and BadInput for weights that are not finite.
    """
    refuse_infinite(weights, folder / "model.safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "model.safetensors", save(contiguous(weights)))
    card = sealed({"schema": SCHEMA, "weights_sha256": sha256_of(folder / "model.safetensors"), **card})
    atomic_write(folder / "model.json", json.dumps(card, indent=1, sort_keys=True).encode())


def read_card(folder: Path) -> dict[str, Any]:
    """`model.json` of a finished model. Raises FileNotFoundError with the verb that would make it."""
    path = Path(folder) / "model.json"
    if not path.exists():
        raise FileNotFoundError(f"no finished model in {folder} (model.json is missing); run the training verb first, "
                                "or point the recipe at another folder")
    card = own_json(path, cure="Copy the folder of the model again; if it was made here, delete it and run the "
                    "training verb again, which resumes from its last checkpoint.")
    if card.get("schema") != SCHEMA:
        raise Mismatch(f"{path} has schema {card.get('schema')}, this version reads {SCHEMA}: train it again")
    return card


def card_of(folder: Path, kind: Literal["segmenter", "head", "links"]) -> dict[str, Any]:
    """`model.json` of a finished model of one kind. Raises ValueError where the folder holds the other kind."""
    card = read_card(folder)
    if missing := [name for name in ("kind", "config", "weights_sha256") if name not in card]:
        raise BadInput("damaged-json", f"it lacks the field {missing[0]!r}.", file=Path(folder) / "model.json",
                       cure="Copy the folder of the model again.")
    if card["kind"] != kind:
        raise ValueError(f"{folder} holds a {card['kind']}, a {kind} is needed; check the recipe's folders")
    return card


def is_finished(folders: Iterable[Path], identity: Identity) -> bool:
    """Whether the models in `folders`, which one training makes, are whole and come of this identity.

    The first is that of the stage whose folder holds the identity. A missing or damaged file of a model means that it
    is not: the training then writes it again from its last checkpoint.
    """
    folders = list(folders)
    cards = [whole_json(folder / "model.json") for folder in folders]
    known = [card for card in cards if card is not None]
    if len(known) < len(folders):
        return False
    same_digest = known[0].get("identity") == digest(plain(identity))
    return (same_digest or has_identity(folders[0].parent, identity)) and all(map(_has_weights, folders, known))


def _has_weights(folder: Path, card: Mapping[str, Any]) -> bool:
    """Whether the weights of a model are those that its card lists."""
    path = folder / "model.safetensors"
    with suppress(OSError, BadInput):
        if known_sha256(path) == card.get("weights_sha256"):
            return True
    say(f"{path} is missing or damaged, so it is written again")
    return False


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a finished model, after checking them against its card."""
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing beside its model.json. {WEIGHTS_CURE}")
    refuse_other_weights(folder)
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise BadInput("damaged-weights", f"it holds no tensors ({error}).", file=path, cure=WEIGHTS_CURE) from None
    refuse_infinite(weights, path)
    return weights


def refuse_other_weights(folder: Path) -> None:
    """Raise Mismatch where the weights in the folder of a model are not those that its card lists."""
    path = Path(folder)
    refuse_other_content(path / "model.safetensors", read_card(path)["weights_sha256"],
                         listed_in=str(path / "model.json"), cure=WEIGHTS_CURE)


def refuse_infinite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise BadInput where a weight of a model, which lies in a file or would be written there, is not finite."""
    broken = [name for name, weight in weights.items() if not torch.isfinite(weight).all()]
    if broken:
        raise BadInput("not-finite", f"{len(broken)} of its weights are infinite or not a number, first {broken[0]}.",
                       file=path, cure="Take another model, or train it again with a lower optimizer.lr.")


def segmenter_card(recipe: Recipe, classes: ClassTable, shards: str) -> dict[str, Any]:
    """What `model.json` of a segmenter says: enough to rebuild it, and where it comes from."""
    stage = recipe.stage_one
    return {"kind": "segmenter", "inference": to_json(recipe.inference),
            "config": to_json(without_download(stage.segmenter)),
            "classes": classes.to_json(), "input_size": stage.input.augment.size and list(stage.input.augment.size),
            "clip_frames": stage.segmenter_frames, "shards_fingerprint": shards, **_made_by(recipe)}


def head_card(recipe: Recipe, segmenter: dict[str, Any], cache: str) -> dict[str, Any]:
    """What `model.json` of a cross-clip head says; it names the one segmenter it belongs to."""
    return {"kind": "head", "inference": to_json(recipe.inference), "config": to_json(recipe.head),
            "cache_fingerprint": cache,
            "segmenter_sha256": segmenter["weights_sha256"], **_made_by(recipe)}


def links_card(recipe: Recipe, network: LinkNetworkConfig, segmenter: dict[str, Any], cache: str) -> dict[str, Any]:
    """What `model.json` of learned links says; it names the one segmenter they belong to."""
    return {"kind": "links", "config": to_json(network), "cache_fingerprint": cache,
            "segmenter_sha256": segmenter["weights_sha256"], **_made_by(recipe)}


def _config(config_type: Any, card: Mapping[str, Any], name: str, folder: Path) -> Any:
    """A configuration of the card of a model. Raises ValueError with the file for one that does not fit."""
    try:
        return from_json(config_type, card[name])
    except ValueError as error:
        raise ValueError(f"{Path(folder) / 'model.json'}: {error}. If this version wrote the file, it is damaged; "
                         "remove it, and run the training again, which writes it from the last checkpoint") from None


def shapes_of(card: Mapping[str, Any]) -> QueryShapes:
    """What the segmenter of a card hands to a cross-clip head."""
    return from_json(SegmenterConfig, card["config"]).shapes


def load_segmenter(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A finished segmenter in evaluation mode, frozen, and its card."""
    card = card_of(folder, "segmenter")
    config = without_download(_config(SegmenterConfig, card, "config", folder))     # earlier cards kept pretrained=True
    return _frozen(config.build(), folder), card


def load_head(folder: Path, *, segmenter_card: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """A finished cross-clip head, frozen. Raises Mismatch when it was trained on another segmenter's queries."""
    card = card_of(folder, "head")
    _refuse_other_segmenter(card, segmenter_card, folder)
    return _frozen(_config(CrossClipConfig, card, "config", folder).build(), folder), card


def load_links(folder: Path, *, segmenter_card: dict[str, Any]) -> tuple[LinkNetwork, dict[str, Any]]:
    """Finished learned links, frozen. Raises FileNotFoundError, with the cure, where there are none, and Mismatch when
    they were trained on another segmenter's queries."""
    if not (Path(folder) / "model.json").is_file():
        raise FileNotFoundError(f"inference.association=links reorders queries by the learned links in {folder}, and "
                                "there are none; train them with a recipe that has stage_two.links "
                                "(jobs.cache_queries, jobs.train_stage_two), or set inference.association=hungarian")
    card = card_of(folder, "links")
    _refuse_other_segmenter(card, segmenter_card, folder)
    config = _config(LinkNetworkConfig, card, "config", folder)
    weights = load_weights(folder)
    network = config.build(embedding=len(weights["mean"]))
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False), card


def _refuse_other_segmenter(card: dict[str, Any], segmenter_card: dict[str, Any], folder: Path) -> None:
    if card["segmenter_sha256"] != segmenter_card["weights_sha256"]:
        raise Mismatch(f"the {card['kind']} in {folder} belongs to segmenter {card['segmenter_sha256'][:12]}..., but "
                         f"{segmenter_card['weights_sha256'][:12]}... is to be used with it; train it again "
                         "(cache_queries, train_stage_two) or choose its own segmenter")


def known_classes(folder: Path, *, expected: ClassTable | None = None) -> ClassTable:
    """The classes of the finished segmenter in `folder`.

    Raises ValueError where they are not the expected ones, or unknown since the model was converted without its data.
    """
    classes = ClassTable.from_json(card_of(folder, "segmenter")["classes"])
    if not classes.has_names:
        raise ValueError(f"the segmenter in {folder} was converted without a data set: its classes have no names, and "
                         "stuff counts as things. Convert it again with --set dataset.root=FOLDER")
    if expected is not None and classes != expected:
        raise ValueError(f"the segmenter in {folder} was trained on the classes of {classes.name}, these shards have "
                         f"those of {expected.name}: {expected.difference_from(classes)}; use shards of the same data "
                         "set")
    return classes


def open_system(recipe: Recipe, mode: Mode, classes: ClassTable | None = None) -> System:
    """The system of a recipe in a mode, made of its finished models; "untrained" needs `classes` instead.

    Raises FileNotFoundError naming the verb that makes a missing model, ValueError when head and segmenter differ, and
    for classes that are unknown or not those expected.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.cluster.gpus_per_actor else "cpu")
    if mode == "untrained":
        if classes is None:
            raise ValueError("an untrained system does not know its classes; give classes=, those of its data")
        stage = recipe.stage_one
        made_by = {"mode": mode, "recipe": recipe.name, "inference": to_json(recipe.inference)}
        return System(segmenter=untrained_segmenter(recipe).to(device), head=None, classes=classes,
                      inference=recipe.inference, clip_frames=stage.segmenter_frames, size=stage.input.augment.size,
                      made_by=made_by)
    head = recipe.head_folder if mode == "offline" else None
    known_classes(recipe.segmenter_folder, expected=classes)
    return _system(recipe.segmenter_folder, head, links_folder=recipe.links_folder, inference=recipe.inference,
                   recipe=recipe.name, device=device)


def load_system(folder: Path | str, *, mode: Mode | None = None, inference: InferenceConfig | None = None,
                segmenter: Path | str | None = None, device: str = "cpu") -> System:
    """The system in the folder of a finished run, with no recipe at hand.

    mode: "near_online" or "offline"; by default offline where there is a cross-clip head. inference: other settings
    than those that the recipe gave the model. segmenter: the folder of the run that trained it, where this run only
    trained a head. The batch norms of its segmenter are folded (`fold_norms`); `load_segmenter` gives the weights as
    they were trained. Raises FileNotFoundError for a missing model, ValueError for parts that do not fit together.
    """
    folder = at_home(folder)
    head = folder / "stage_two" / "model"
    if mode is None:
        mode = "offline" if (head / "model.json").is_file() else "near_online"
    if mode not in ("near_online", "offline"):
        raise ValueError(f"mode={mode!r} is not a way to use a finished model; choose 'near_online' or 'offline'")
    segmenter_folder = at_home(segmenter or folder) / "stage_one" / "model"
    model_folder = head if mode == "offline" else segmenter_folder
    card = read_card(model_folder)
    if inference is None and "inference" not in card:
        raise ValueError(f"{folder} was finished by an earlier version, whose models do not say how they make results; "
                         "give inference=InferenceConfig(...), or use jobs.predict with its recipe")
    inference = inference or _config(InferenceConfig, card, "inference", model_folder)
    return _system(segmenter_folder, head if mode == "offline" else None, recipe=card["recipe"],
                   links_folder=folder / "stage_two" / "links" / "model", inference=inference,
                   device=torch.device(device))


def _system(segmenter_folder: Path, head_folder: Path | None, *, links_folder: Path, inference: InferenceConfig,
            recipe: str, device: torch.device) -> System:
    segmenter, card = load_segmenter(segmenter_folder)
    segmenter = fold_norms(segmenter)
    made_by = {"mode": "near_online", "recipe": recipe, "inference": to_json(inference),
               "segmenter_sha256": card["weights_sha256"]}
    head = None
    if head_folder is not None:
        head, head_card = load_head(head_folder, segmenter_card=card)
        made_by |= {"mode": "offline", "head_sha256": head_card["weights_sha256"]}
        head = head.to(device)
    links = None
    if inference.association.kind == "links":
        links, own_card = load_links(links_folder, segmenter_card=card)
        made_by |= {"links_sha256": own_card["weights_sha256"]}
        links = links.to(device)
    return System(segmenter=segmenter.to(device), head=head, links=links, classes=known_classes(segmenter_folder),
                  inference=inference, clip_frames=card["clip_frames"],
                  size=card["input_size"] and tuple(card["input_size"]), made_by=made_by)


def lineage(folder: Path) -> dict[str, Any]:
    """Where a finished model comes from, as tags: its weights' digest, its inputs and the code."""
    card = read_card(folder)
    inputs = {"shards": "shards_fingerprint", "cache": "cache_fingerprint", "segmenter": "segmenter_sha256"}
    return {"sha256": card["weights_sha256"], "code": card["code"]["commit"], "code_changed": card["code"]["changed"],
            "recipe": card["recipe"], **{tag: card[field] for tag, field in inputs.items() if card.get(field)}}


def store_model(folder: Path, tracker: Tracker) -> None:
    """Store a finished model in the run of MLflow that trained it; `jobs.promote` registers the best one."""
    tracker.file(folder, "checkpoint")
    tracker.tags(lineage(folder))


def without_download(config: SegmenterConfig) -> SegmenterConfig:
    """The same network without timm's weights: for one whose weights come from a file of ours or do not matter."""
    return replace(config, backbone=replace(config.backbone, pretrained=False))


def untrained_segmenter(recipe: Recipe) -> nn.Module:
    """The segmenter as its seed makes it, frozen: the score to be better than."""
    torch.manual_seed(recipe.stage_one.fit.seed)
    return recipe.stage_one.segmenter.build().eval().requires_grad_(False)


def _frozen(module: nn.Module, folder: Path) -> nn.Module:
    module.load_state_dict(load_weights(folder))
    return module.eval().requires_grad_(False)


def _made_by(recipe: Recipe) -> dict[str, Any]:
    return {"recipe": recipe.name, "recipe_digest": config_digest(recipe), "code": code_version()}
