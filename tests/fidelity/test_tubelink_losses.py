"""The point-sampled losses of Tube-Link, their gradients and the matching equal the public code."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch import Tensor

from model.contracts import ClipPrediction, ClipTargets, LayerPrediction
from model.losses.mask2former import Mask2FormerCriterion, Mask2FormerLossConfig
from model.losses.points import Draw, PointConfig
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled

TERMS = {"class": "loss_cls", "mask": "loss_mask", "dice": "loss_dice"}


@pytest.mark.parametrize("path", cases("tubelink_losses"), ids=case_id)
def test_losses_gradients_and_assignment_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure != "tl_losses":
            raise unhandled(case)
        layers = predicted(case)
        targets = ground_truth(case)
        config = config_of(case)
        criterion = Mask2FormerCriterion(config)
        prediction = ClipPrediction(
            class_logits=layers[-1].class_logits, mask_logits=layers[-1].mask_logits, auxiliary=tuple(layers[:-1]),
            queries=torch.empty(0), mask_embeddings=torch.empty(0), pixel_features=torch.empty(0))
        losses = criterion.layer_losses(prediction, targets, draw=recorded(case))
        weighted = [{name: config.weights[name] * loss for name, loss in terms.items()} for terms in losses]
        for layer, terms in enumerate([*weighted[1:], weighted[0]]):
            prefix = f"loss.d{layer}_" if layer + 1 < len(layers) else "loss."
            for name, loss in terms.items():
                assert_close_to(case, prefix + TERMS[name], in_shape(case, prefix + TERMS[name], loss))
        total = sum(loss for terms in weighted for loss in terms.values())
        assert_close_to(case, "total", in_shape(case, "total", total))
        total.backward()
        for layer in range(len(layers)):
            for name in ("cls", "masks"):
                assert_close_to(case, f"grad.{name}.{layer}", case.inputs[f"{name}.{layer}"].grad)
        compare_assignment(case, criterion, layers, targets)


def config_of(case: Case) -> Mask2FormerLossConfig:
    """Ratios that are not recorded are those of every Tube-Link configuration."""
    a = case.arguments
    return Mask2FormerLossConfig(points=PointConfig(
        count=a["num_points"], oversample=a.get("oversample_ratio", 3.0),
        importance=a.get("importance_sample_ratio", 0.75)))


def predicted(case: Case) -> list[LayerPrediction]:
    layers = []
    for layer in range(case.arguments["num_layers"]):
        classes, masks = (case.inputs[f"{name}.{layer}"].requires_grad_() for name in ("cls", "masks"))
        assert classes.shape[-1] == case.arguments["num_classes"] + 1
        layers.append(LayerPrediction(class_logits=classes, mask_logits=rearrange(masks, "b t n h w -> b n t h w")))
    return layers


def ground_truth(case: Case) -> list[ClipTargets]:
    targets = []
    while (name := f"target.{len(targets)}") + ".masks" in case.inputs:
        masks = case.inputs[f"{name}.masks"] > 0
        classes = case.inputs[f"{name}.labels"]
        targets.append(ClipTargets(masks=masks, classes=classes, void=~masks.any(0), track_ids=classes))
    return targets


def recorded(case: Case) -> Draw:
    """The recorded uniform numbers, one after the other."""
    numbers = (case.inputs[f"uniform.{draw}"]
               for draw in range(sum(name.startswith("uniform.") for name in case.inputs)))

    def draw(*shape: int) -> Tensor:
        drawn = next(numbers)
        assert drawn.shape == shape
        return drawn

    return draw


def in_shape(case: Case, name: str, loss: Tensor) -> Tensor:
    """The reference's scalars have one axis where its normaliser had."""
    return loss.reshape(case.outputs[name].shape)


def compare_assignment(case: Case, criterion: Mask2FormerCriterion, layers: list[LayerPrediction],
                       targets: list[ClipTargets]) -> None:
    """Matches again, with the draws of the matching picked out: one per clip at the head of each layer's draws."""
    draws = [name for name in sorted(case.inputs, key=lambda name: (len(name), name)) if name.startswith("uniform.")]
    per_layer = len(draws) // len(layers)
    for number, layer in enumerate(layers):
        own = iter(draws[number * per_layer:])
        tubes = criterion.match(layer, criterion.truth(targets), lambda *_, own=own: case.inputs[next(own)])
        for item, assigned in enumerate(tubes):
            assert_close_to(case, f"assigned.{number * len(targets) + item}", assigned + 1)
