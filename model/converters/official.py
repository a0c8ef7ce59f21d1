"""Whole official checkpoints <-> our segmenter and cross-clip head, weight by weight and without leftovers.

A layout (`model/converters/layouts.py`) holds the names. Those of a head's weights are ours behind `HEAD`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.converters.backbones import our_shape, their_shape
from model.converters.layouts import BACKBONE, Layout, Part
from model.converters.rename import new_name, rename, reverse

# Buffers that were not learned.
_REBUILT = re.compile(r"(.*\.)?((vita_)?criterion\..+|pixel_mean|pixel_std|relative_position_index|"
                      r"blocks\.\d+\.attn_mask)")
_ROWS = (                           # weights whose first axis depends on the data set or the recipe
    (re.compile(r"(.*\.)?(class_head|classify)(\.conv)?\.(weight|bias)"), "class rows"),
    (re.compile(r"query_decoder\.(initial_queries|query_positions)"), "queries"),
)
_MOST_PROBLEMS = 20                 # printed one by one


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The fate of every weight of a foreign checkpoint, and the origin of every weight of ours."""

    weights: dict[str, Tensor]       # our name -> weight
    names: dict[str, str]            # their name -> ours, for all weights that were taken
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
    These are left out and reported: buffers that were not learned; class rows and learned queries where the recipe has
    another number of them; weights that nothing in the checkpoint reads, since the part that would read them is absent
    (`Part`); a part that only training needs and `own` lacks. Raises ValueError with a list of all other misfits.
    """
    result = Conversion(weights={}, names={}, unused={}, from_scratch={})
    problems: list[str] = []
    our_names = _our_names(state, layout, result, problems)
    absent = [part for part in layout.optional if not _any_starts_with(our_names.values(), part.core)]
    unwanted = [part for part in layout.optional if part.unwanted and not _any_starts_with(own, part.core)]
    class_order = torch.tensor(layout.classes).argsort()
    for name, ours in our_names.items():
        reason = _why_unread(ours, absent) or _why_unwanted(ours, unwanted)
        problem = ""
        if not reason:
            reason, problem = _fit(ours, state[name], own)
        if ours in result.weights:
            problems.append(f"{name}: {ours} is filled already; two spellings in one checkpoint")
        elif problem:
            problems.append(f"{name}: {problem}")
        elif reason:
            result.unused[name] = reason
        else:
            tensor = our_shape(state[name], name=ours, naming=layout.backbone)
            result.names[name] = ours
            result.weights[ours] = _reordered(tensor, ours, class_order)
            _take_copy(name, ours, layout=layout, own=own, result=result)
    for name in (name for name in own if name not in result.weights):
        if reason := _why_missing(name, result, own, layout, absent):
            result.from_scratch[name] = reason
        else:
            problems.append(f"our {name}: not in the checkpoint")
    if problems:
        raise ValueError(_misfit(problems, total=len(state)))
    return result


def _our_names(state: Mapping[str, Tensor], layout: Layout, result: Conversion, problems: list[str]) -> dict[str, str]:
    """Their name -> ours for every weight that has a place; the others go to `result.unused` or to the problems."""
    rules = layout.rules()
    ours = {}
    for name in state:
        bare = name.removeprefix(layout.prefix)
        if _REBUILT.fullmatch(bare):
            result.unused[name] = "a constant that every run rebuilds"
            continue
        try:
            target = new_name(bare, rules)
        except KeyError:
            problems.append(f"{name}: no such weight in the official models that this converter supports")
            continue
        if target is None:
            result.unused[name] = "the classifier of the pre-training"
        else:
            ours[name] = target
    return ours


def _any_starts_with(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _why_unread(ours: str, absent: Sequence[Part]) -> str:
    """Why a weight was never trained: the part of the official model that reads it is absent from the checkpoint."""
    return next((f"{part.absent}, so nothing reads it" for part in absent if ours.startswith(part.reads)), "")


def _why_unwanted(ours: str, unwanted: Sequence[Part]) -> str:
    """Why a weight has no place in the recipe's model; empty where it needs one."""
    return next((part.unwanted for part in unwanted if ours.startswith(part.core)), "")


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


def _take_copy(name: str, ours: str, *, layout: Layout, own: Mapping[str, Tensor], result: Conversion) -> None:
    """Give a weight that segmenter and head share to the head as well, where there is one."""
    try:
        copy = new_name(name.removeprefix(layout.prefix), layout.copies)
    except KeyError:
        return
    if copy in own:
        result.names[name] = f"{ours} and {copy}"
        result.weights[copy] = result.weights[ours]


def _without_copies(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our weights without the head's copies. Raises ValueError where a copy differs from the segmenter's weight."""
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


def _fit(ours: str, tensor: Tensor, own: Mapping[str, Tensor]) -> tuple[str, str]:
    """The reason to leave a weight out, and the reason to refuse it; both are empty where it is taken."""
    if ours not in own:
        return "", f"the recipe's model has no {ours}"
    shape = tuple(our_shape(tensor, name=ours).shape)
    expected = tuple(own[ours].shape)
    if shape == expected:
        return "", ""
    for rows, kind in _ROWS:
        if rows.fullmatch(ours) and shape[1:] == expected[1:]:
            return f"{shape[0]} {kind}, the recipe's model has {expected[0]}", ""
    return "", f"shape {shape}, the recipe's {ours} has {expected}"


def _why_missing(name: str, result: Conversion, own: Mapping[str, Tensor], layout: Layout,
                 absent: Sequence[Part]) -> str:
    """Why a weight of ours may start from scratch; empty where it may not."""
    if layout.family == "backbone" and not name.startswith(BACKBONE):
        return "ImageNet weights fill the backbone alone"
    if name.endswith(".num_batches_tracked"):
        return "a counter the checkpoint does not keep"
    for rows, kind in _ROWS:
        if rows.fullmatch(name) and any(f" {kind}," in reason for reason in result.unused.values()):
            return f"{len(own[name])} {kind}, the checkpoint has another number"
    return next((part.absent for part in absent if name.startswith((part.core, *part.reads))), "")


def _misfit(problems: list[str], *, total: int) -> str:
    more = [f"... and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
    listing = "\n  ".join([*problems[:_MOST_PROBLEMS], *more])
    return (f"{len(problems)} weights do not fit ({total} in the checkpoint):\n  {listing}\nChoose the recipe whose "
            "backbone, within-clip tracking and sizes are those of the checkpoint, or --set its fields under "
            "stage_one.segmenter and stage_two.head")
