"""Whole official checkpoints <-> our segmenter and cross-clip head, weight by weight and without leftovers.

What the names look like is the layout's business (`model/converters/layouts.py`); names of head weights are ours behind
`HEAD`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.converters.backbones import our_shape, their_shape
from model.converters.layouts import BACKBONE, Layout
from model.converters.rename import new_name, rename, reverse

# nothing learnt
_REBUILT = re.compile(r"(.*\.)?((vita_)?criterion\..+|pixel_mean|pixel_std|relative_position_index)")
_ROWS = (                           # first axes that data set and recipe decide, and not the network
    (re.compile(r"(.*\.)?(class_head|classify)(\.conv)?\.(weight|bias)"), "class rows"),
    (re.compile(r"query_decoder\.(initial_queries|query_positions)"), "queries"),
)
_MOST_PROBLEMS = 20                 # that are printed one by one


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What became of every weight of a foreign checkpoint, and where every weight of ours comes from."""

    weights: dict[str, Tensor]       # our name -> weight
    names: dict[str, str]            # their name -> ours, of all that were taken
    unused: dict[str, str]           # their name -> why it was not taken
    from_scratch: dict[str, str]     # our name -> why the checkpoint does not fill it


def has_head(names: Iterable[str]) -> bool:
    """Whether a checkpoint holds a cross-clip head, as offline ones and those of VITA do."""
    return any("transformer_trajectory_self_attention_layers." in name or "vita_module." in name for name in names)


def has_semantic_head(names: Iterable[str]) -> bool:
    """Whether a checkpoint holds the auxiliary semantic head; offline ones do not."""
    return any("._auxiliary_semantic_predictor." in name for name in names)


def to_ours(state: Mapping[str, Tensor], *, layout: Layout, own: Mapping[str, Tensor]) -> Conversion:
    """Give every weight of a checkpoint its place in our model.

    own: state dict of the segmenter, and of the head behind `HEAD`; only shapes are read, so meta tensors will do.
    Class rows of another number of classes, and learned queries of another number, are left out, and so is what only
    training needs and `own` lacks. Anything else that does not fit is a ValueError that lists it.
    """
    rules = layout.rules()
    found = Conversion(weights={}, names={}, unused={}, from_scratch={})
    problems = []
    class_order = torch.tensor(layout.classes).argsort()
    for name, tensor in state.items():
        bare = name.removeprefix(layout.prefix)
        if _REBUILT.fullmatch(bare):
            found.unused[name] = "a constant that every run rebuilds"
            continue
        try:
            ours = new_name(bare, rules)
        except KeyError:
            problems.append(f"{name}: no such weight in the official models this converter knows")
            continue
        reason, problem = _fit(ours, tensor, own)
        if ours in found.weights:
            problems.append(f"{name}: {ours} is filled already; two spellings in one checkpoint")
        elif problem:
            problems.append(f"{name}: {problem}")
        elif reason:
            found.unused[name] = reason
        else:
            tensor = our_shape(tensor, name=ours, naming=layout.backbone)
            found.names[name] = ours
            found.weights[ours] = _reordered(tensor, ours, class_order)
            _take_copy(name, ours, layout=layout, own=own, found=found)
    for name in (name for name in own if name not in found.weights):
        if reason := _why_missing(name, found, own, layout):
            found.from_scratch[name] = reason
        else:
            problems.append(f"our {name}: not in the checkpoint")
    if problems:
        raise ValueError(_misfit(problems, total=len(state)))
    return found


def to_theirs(weights: Mapping[str, Tensor], *, layout: Layout) -> dict[str, Tensor]:
    """Our weights, those of a head behind `HEAD`, under official names and in official shapes.

    Raises ValueError naming weights that the official code has no place for.
    """
    if layout.family == "backbone":
        weights = {name: tensor for name, tensor in weights.items() if name.startswith(BACKBONE)}
    if layout.family == "detectron2" and not layout.counters:
        weights = {name: tensor for name, tensor in weights.items() if not name.endswith(".num_batches_tracked")}
    weights = {name: _reordered(tensor, name, torch.tensor(layout.classes))
               for name, tensor in _without_copies(weights, layout).items()}
    theirs = rename(weights, reverse(layout.rules()))
    return {f"{layout.prefix}{name}": their_shape(tensor, name=name, naming=layout.backbone)
            for name, tensor in theirs.items()}


def _reordered(tensor: Tensor, ours: str, order: Tensor) -> Tensor:
    """Class rows in another order; the last one, no object, stays the last, and no order leaves everything alone."""
    rows, _ = _ROWS[0]
    if not len(order) or not rows.fullmatch(ours):
        return tensor
    return tensor[torch.cat([order, order.new_tensor([len(order)])])]


def _take_copy(name: str, ours: str, *, layout: Layout, own: Mapping[str, Tensor], found: Conversion) -> None:
    """Give a weight that serves segmenter and head to the head as well, where there is one."""
    try:
        copy = new_name(name.removeprefix(layout.prefix), layout.copies)
    except KeyError:
        return
    if copy in own:
        found.names[name] = f"{ours} and {copy}"
        found.weights[copy] = found.weights[ours]


def _without_copies(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our weights with the head's copies left out. Raises ValueError where a copy is none any more."""
    backwards = reverse(layout.copies)
    kept = {}
    different = []
    for name, tensor in weights.items():
        try:
            original = new_name(new_name(name, backwards), layout.rules())
        except KeyError:
            kept[name] = tensor
            continue
        if tensor is not weights[original] and not torch.equal(tensor, weights[original]):
            different.append(name)
    if different:
        raise ValueError(f"{', '.join(different)} differ from the segmenter's, as after training a head on its own, "
                         "and the official code has one place for both; convert the segmenter alone")
    return kept


def _fit(ours: str | None, tensor: Tensor, own: Mapping[str, Tensor]) -> tuple[str, str]:
    """(why the weight is left out, what is wrong with it); both empty where it is taken."""
    if ours is None:
        return "the classifier of the pre-training", ""
    if ours not in own:
        if ours.startswith("semantic_head.") and not any(name.startswith("semantic_head.") for name in own):
            return "auxiliary semantic head; the recipe trains without it", ""
        return "", f"the recipe's model has no {ours}"
    shape = tuple(our_shape(tensor, name=ours).shape)
    expected = tuple(own[ours].shape)
    if shape == expected:
        return "", ""
    for rows, what in _ROWS:
        if rows.fullmatch(ours) and shape[1:] == expected[1:]:
            return f"{shape[0]} {what}, the recipe's model has {expected[0]}", ""
    return "", f"shape {shape}, the recipe's {ours} has {expected}"


def _why_missing(name: str, found: Conversion, own: Mapping[str, Tensor], layout: Layout) -> str:
    """Why a weight of ours may start from scratch; empty where it may not."""
    if layout.family == "backbone" and not name.startswith(BACKBONE):
        return "ImageNet weights fill the backbone alone"
    if name.endswith(".num_batches_tracked"):
        return "a counter the checkpoint does not keep"
    for rows, what in _ROWS:
        if rows.fullmatch(name) and any(f" {what}," in reason for reason in found.unused.values()):
            return f"{len(own[name])} {what}, the checkpoint has another number"
    return next((reason for prefixes, reason in layout.optional
                 if name.startswith(prefixes) and not any(n.startswith(prefixes) for n in found.weights)), "")


def _misfit(problems: list[str], *, total: int) -> str:
    more = [f"... and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
    listing = "\n  ".join([*problems[:_MOST_PROBLEMS], *more])
    return (f"{len(problems)} weights do not fit ({total} in the checkpoint):\n  {listing}\nChoose the recipe whose "
            "backbone, within-clip tracking and sizes are those of the checkpoint, or --set its fields under "
            "stage_one.segmenter and stage_two.head")
