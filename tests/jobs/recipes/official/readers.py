"""Values of a recipe, by the name of a field: a path into the configuration, or a function of the resolved recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

from jobs.recipes.schema import Recipe
from jobs.training.freezing import freeze
from jobs.training.optimizer import OptimizerConfig, parameter_groups, rate_factor
from model.joint import DetectorWithHead
from tests.jobs.recipes.official.parameters import ParameterRule
from tests.jobs.recipes.official.schedules import Drops, Poly

ABSENT = "no such setting"


def read(recipe: Recipe, field: str) -> Any:
    """The value at a path; ABSENT where the recipe has no such part, or the schema no such field."""
    if field in READERS:
        return READERS[field](recipe)
    value = recipe
    for name in field.split("."):
        if value is None or not hasattr(value, name):
            return ABSENT
        value = getattr(value, name)
    return value


def rates(recipe: Recipe, stage: str, official: Poly | Drops) -> dict[int, float]:
    """Our learning rates at the steps that the official schedule wants compared."""
    part = getattr(recipe, stage)
    if part is None:
        return {}
    return {step: part.optimizer.lr * rate_factor(step, part.fit.steps, part.optimizer)
            for step in official.chosen_steps() if step < part.fit.steps}


def parameter_kinds(recipe: Recipe, stage: str, rule: ParameterRule) -> Iterator[tuple[str, tuple, set[tuple]]]:
    """(kind, official (factor, decay), ours) of each kind of parameter that the rule tells apart.

    The factor is on the learning rate of `rates`. 0 means frozen, whether the optimiser never sees a parameter or never
    moves it; its decay is then left open.
    """
    part = getattr(recipe, stage)
    if part is None:
        return
    trained = (part.head, None) if stage == "stage_two" else (part.segmenter, part.joint)
    kinds: dict[str, tuple[tuple, set[tuple]]] = {}
    for name, module, setting in _groups(*trained, part.optimizer):
        factor, decay = rule.kind_of(name, module)
        value = (factor.value, decay.value) if factor.value else (0.0, None)
        title = f"{factor.title}: {decay.title}" if factor.value else factor.title
        kinds.setdefault(title, (value, set()))[1].add(setting)
    for title, (official, settings) in kinds.items():
        yield title, official, settings


@cache
def _groups(trained: Any, joint: Any, optimizer: OptimizerConfig) -> list[tuple[str, nn.Module, tuple]]:
    """(name, owning module, (factor, decay)) of every parameter of a stage."""
    model = _model(trained, joint)
    freeze(model, optimizer.frozen)
    names = {parameter: name for name, parameter in model.named_parameters()}
    modules = dict(model.named_modules())
    ours = dict.fromkeys(names.values(), (0.0, None))
    for group in parameter_groups(model, optimizer):
        for parameter in group["params"]:
            ours[names[parameter]] = (group["factor"], group["weight_decay"]) if group["lr"] else (0.0, None)
    return [(name, modules[name.rpartition(".")[0]], setting) for name, setting in ours.items()]


def _model(trained: Any, joint: Any) -> nn.Module:
    """What a stage trains, without memory for its weights."""
    with torch.device("meta"):
        if not hasattr(trained, "backbone"):
            return trained.build()
        segmenter = replace(trained, backbone=replace(trained.backbone, pretrained=False)).build()
        return segmenter if joint is None else DetectorWithHead(segmenter, joint.head.build(), layers=joint.layers)


def _recipe_of(folder: str) -> str:
    """The recipe that makes a model in its own folder."""
    return folder.removeprefix("runs/").removesuffix("/model").removesuffix("/stage_one").removesuffix("/stage_two")


def _start_of_head(recipe: Recipe) -> str:
    """The recipe whose finished head VITA's head starts from; empty where there is none."""
    part = recipe.stage_one.joint or recipe.stage_two
    return _recipe_of(getattr(part, "start_from", ""))


def _start(recipe: Recipe) -> str:
    """The recipe whose finished segmenter a run starts from; ImageNet where there is none."""
    folder = recipe.stage_one.start_from
    if folder:
        return _recipe_of(folder)
    return "ImageNet" if recipe.stage_one.segmenter.backbone.pretrained else "nothing"


def _test_frames(recipe: Recipe) -> int:
    return recipe.inference.clip_frames or recipe.stage_one.input.clip_frames


def _reserved_queries(recipe: Recipe) -> int:
    return len(recipe.stage_one.segmenter.stuff_classes)


def _frozen_parts(recipe: Recipe) -> str:
    """What training does to the parameters that it never moves."""
    one = recipe.stage_one
    model = _model(one.segmenter, one.joint)
    freeze(model, one.optimizer.frozen)
    model.train()
    moving = {parameter for group in parameter_groups(model, one.optimizer) if group["factor"]
              for parameter in group["params"]}
    modules = dict(model.named_modules())
    held = [(parameter, modules[name.rpartition(".")[0]]) for name, parameter in model.named_parameters()
            if parameter not in moving]
    if not held:
        return "none"
    gradient = "gradients" if any(parameter.requires_grad for parameter, _ in held) else "no gradients"
    mode = "training" if any(module.training for _, module in held) else "evaluation"
    return f"{gradient}, in {mode} mode"


READERS: dict[str, Callable[[Recipe], Any]] = {
    "start weights": _start,
    "start weights of the head": _start_of_head,
    "frozen parts": _frozen_parts,
    "inference.clip_frames": _test_frames,
    "reserved queries": _reserved_queries,
}
