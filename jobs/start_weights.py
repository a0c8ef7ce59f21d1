"""Start weights: a part of a new model, its segmenter or its cross-clip head, is filled from a finished model.

Each part has a setting of its own (`Recipe.starts`). The numbers of classes and of queries may differ: those weights
keep what the seed of the run gave them, as do the layers that the finished model lacks, and all of them are listed. Any
other difference is refused, because a part of the model would silently start at random.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from jobs.console import say
from jobs.models import card_of, load_weights
from jobs.recipes.schema import Recipe
from pipeline.errors import Mismatch

KINDS: dict[str, Literal["segmenter", "head"]] = {
    "stage_one.start_from": "segmenter", "stage_one.joint.start_from": "head", "stage_two.start_from": "head"}


def fill(part: nn.Module, recipe: Recipe, setting: str) -> None:
    """Load every weight that fits from the model that `setting` names, and say which stay as they are.

    Raises FileNotFoundError for a missing model, ValueError for one of another kind or architecture.
    """
    folder = recipe.starts.get(setting)
    if folder is None:
        return
    _card(setting, folder)
    weights = load_weights(Path(folder))
    own = part.state_dict()
    refuse_other_architecture(own, weights, place=f"{setting}={folder}")
    fitting = {name: weight for name, weight in weights.items() if name in own and own[name].shape == weight.shape}
    part.load_state_dict({**own, **fitting})
    fresh = sorted(own.keys() - fitting.keys())
    unused = sorted(weights.keys() - fitting.keys())
    say(f"{KINDS[setting]} starts from {folder}: {len(fitting)} tensors; from scratch: {fresh or 'none'}; "
        f"unused: {unused or 'none'}")


def refuse_unfit_starts(recipe: Recipe, stage: Literal["stage_one", "stage_two"]) -> None:
    """Raise before any worker starts: FileNotFoundError for a missing model, ValueError for one of another kind, and
    Mismatch where detector and head, which are to learn together, come from different runs."""
    cards = {setting: _card(setting, folder) for setting, folder in recipe.starts.items()
             if setting.startswith(stage)}
    if not {"stage_one.start_from", "stage_one.joint.start_from"} <= cards.keys():
        return
    read = cards["stage_one.joint.start_from"]["segmenter_sha256"]
    given = cards["stage_one.start_from"]["weights_sha256"]
    if read != given:
        raise Mismatch(f"the head of stage_one.joint.start_from={recipe.starts['stage_one.joint.start_from']} reads "
                       f"the queries of the segmenter {read[:12]}..., stage_one.start_from="
                       f"{recipe.starts['stage_one.start_from']} is {given[:12]}...; name two parts of one run, or set "
                       "stage_one.joint.start_from= to start the head at random")


def refuse_other_architecture(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], *, place: str) -> None:
    """Raise ValueError unless weights of one name differ in their first dimension at most (classes, queries, windows),
    and every module that both models have shares at least one name. place: setting and folder, for the message."""
    shared = own.keys() & weights.keys()
    strangers = (_modules(own) & _modules(weights)) - _modules(shared)
    if strangers or not shared:
        raise ValueError(f"{place}: no weight of {', '.join(sorted(strangers)) or 'it'} fits this recipe, so it is "
                         "another architecture; name a model with the same parts")
    for name in sorted(shared):
        theirs = tuple(weights[name].shape)
        ours = tuple(own[name].shape)
        if ours[1:] != theirs[1:]:
            raise ValueError(f"{place}: {name} has the shape {theirs} there and {ours} in this recipe. Only numbers of "
                             "classes and of queries may differ; name a model of the same sizes")


def _card(setting: str, folder: str) -> dict[str, Any]:
    try:
        return card_of(Path(folder), KINDS[setting])
    except (FileNotFoundError, ValueError) as error:
        error.add_note(f"{setting} names this folder: run the recipe that makes it, convert a checkpoint into it with "
                       f"jobs.convert_checkpoint, or set {setting}= to start without it.")
        raise


def _modules(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}
