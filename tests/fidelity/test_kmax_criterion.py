"""The kMaX losses, their gradients and the matching equal the official criteria, for clips, images and whole videos."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch import Tensor

from model.contracts import ClipPrediction, ClipTargets, LayerPrediction, VideoPrediction
from model.losses.cross_clip import CrossClipLossConfig
from model.losses.kmax import KMaxLossConfig
from model.losses.matching import match_queries
from model.losses.points import Draw
from model.losses.targets import PixelTargets, clip_targets, video_targets
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled
from tests.model.losses.world import dense_evidence

TERMS = {"labels": {"class": "loss_ce"}, "masks": {"mask": "loss_mask", "dice": "loss_dice"},
         "pixels": {"pixel": "loss_pixel_insdis"}, "aux_semantic": {"semantic": "loss_aux_semantic"}}
PREDICTED = ("pred_logits", "pred_masks", "pixel_feature", "aux_semantic_pred")
MERGING = "kmax_image_panoptic"     # of the family kmax_image too, but a matter of post-processing
CASES = [path for family in ("kmax_criterion", "kmax_image") for path in cases(family)]
CASES = [path for path in CASES if load_case(path).procedure != MERGING]


@pytest.mark.parametrize("path", CASES, ids=case_id)
def test_losses_gradients_and_assignment_equal_the_reference(path):
    with load_case(path) as case:
        procedure = (case.procedure, case.arguments.get("stage"))
        if procedure == ("kmax_image_criterion", None):
            run_clips(case, image_config(case))
        elif procedure == ("maxtron_criterion", "within_clip"):
            run_clips(case, clip_config(case))
        elif procedure == ("maxtron_criterion", "cross_clip"):
            run_videos(case)
        else:
            raise unhandled(case)


def wanted(case: Case) -> dict[str, float]:
    """The terms of the case with weight 1, all others off: the reference sums its losses without weights."""
    terms = [term for name in case.arguments["losses"] for term in TERMS[name]]
    return {f"{term}_weight": float(term in terms) for names in TERMS.values() for term in names}


def image_config(case: Case) -> KMaxLossConfig:
    """kMaX-DeepLab on images; where a case records no temperatures, they are its defaults."""
    arguments = case.arguments
    return KMaxLossConfig(
        **wanted(case), normalise_overlaps=True, official_compat=True, pixel_samples=arguments["pixel_sample_k"],
        semantic_samples=arguments["semantic_sample_k"], smallest_weight=arguments["eos_coef"],
        pixel_temperature=arguments.get("pixel_insdis_temperature", 1.5),
        semantic_temperature=arguments.get("aux_semantic_temperature", 2.0),
        share_matching=arguments["share_final_matching"], void_counts=not arguments["masking_void_pixel"])


def clip_config(case: Case) -> KMaxLossConfig:
    """MaXTron on clips."""
    arguments = case.arguments
    return KMaxLossConfig(
        **wanted(case), pixel_samples=arguments["sample_k"], semantic_samples=arguments["sample_k"],
        pixel_temperature=arguments["pixel_insdis_temperature"],
        semantic_temperature=arguments["aux_semantic_temperature"],
        share_matching=arguments["share_final_matching"], void_counts=not arguments["masking_void_pixel"])


def video_config(case: Case) -> CrossClipLossConfig:
    """MaXTron's stage two."""
    weights = {name: weight for name, weight in wanted(case).items() if name in ("class_weight", "mask_weight",
                                                                                  "dice_weight")}
    return CrossClipLossConfig(**weights, share_matching=case.arguments["share_final_matching"],
                               void_counts=not case.arguments["masking_void_pixel"])


def run_clips(case: Case, config: KMaxLossConfig) -> None:
    leaves = predicted(case)
    targets = ground_truth(case)
    final = clip_prediction(case, leaves, targets)
    compare(case, leaves, config.build().layer_losses(final, targets, draw=recorded_draw(case, config)))

    compare_matching(case, final.class_logits, final.mask_logits.flatten(2), clip_targets(targets))
    assert final.class_logits.shape[-1] == case.arguments["num_classes"] + 1


def clip_prediction(case: Case, leaves: list[dict[str, Tensor]], targets: list[ClipTargets]) -> ClipPrediction:
    """The predictions of a case about clips, the final one first among its leaves. An image is a clip of one frame."""
    frames = targets[0].void.shape[0]
    layers = [LayerPrediction(class_logits=leaf["pred_logits"], mask_logits=in_time(case, leaf["pred_masks"]),
                              pixel_features=in_time(case, leaf["pixel_feature"]) if "pixel_feature" in leaf else None)
              for leaf in leaves]
    semantic = leaves[0].get("aux_semantic_pred")
    return ClipPrediction(
        class_logits=layers[0].class_logits, mask_logits=layers[0].mask_logits, auxiliary=tuple(layers[1:]),
        pixel_features=layers[0].pixel_features, queries=torch.empty(0), mask_embeddings=torch.empty(0),
        semantic_logits=None if semantic is None else rearrange(semantic, "b c (t h) w -> b c t h w", t=frames))


def recorded_draw(case: Case, config: KMaxLossConfig) -> Draw:
    """The recorded uniform numbers one after the other. A case without any draws all pixels, whatever the numbers."""
    count = sum(name.startswith("uniform") for name in case.inputs)
    numbers = [case.inputs[f"uniform.{index}"] for index in range(count)]
    sampled = [name for name in case.arguments["losses"] if name == "pixels" or (
        name == "aux_semantic" and config.semantic_samples)]
    if sampled == ["aux_semantic", "pixels"]:     # the reference draws in the order of its list, we in the other
        numbers[:2] = reversed(numbers[:2])
    if not numbers:
        return lambda *shape: torch.full(shape, 0.5)
    remaining = iter(numbers)
    return lambda *shape: next(remaining).view(shape)


def run_videos(case: Case) -> None:
    leaves = predicted(case)
    evidence = dense_evidence(*ground_truth(case))
    predictions, mask_logits = video_predictions(leaves)
    compare(case, leaves, video_config(case).build().layer_losses(predictions, mask_logits, evidence))

    compare_matching(case, leaves[0]["pred_logits"], leaves[0]["pred_masks"].flatten(2), video_targets(evidence))
    assert leaves[0]["pred_logits"].shape[-1] == case.arguments["num_classes"] + 1
    for unused in ("pixel_insdis_temperature", "aux_semantic_temperature", "sample_k"):
        case.arguments.get(unused)     # a setting of terms that stage two does not have


def video_predictions(leaves: list[dict[str, Tensor]]) -> tuple[list[VideoPrediction], list[Tensor]]:
    """The layers of a case about videos, the last one counts; each frame is a clip of which every pixel is stored."""
    layers = [*leaves[1:], leaves[0]]
    predictions = [VideoPrediction(class_logits=layer["pred_logits"], mask_embeddings=torch.empty(0),
                                   queries=torch.empty(0)) for layer in layers]
    return predictions, [rearrange(layer["pred_masks"], "b n T h w -> b T n (h w)") for layer in layers]


def predicted(case: Case) -> list[dict[str, Tensor]]:
    """Leaves with gradient: final output first, then the auxiliary ones."""
    layers = ["", *sorted({".".join([*name.split(".")[:2], ""]) for name in case.inputs if name.startswith("aux.")})]
    return [{name: case.inputs[layer + name].requires_grad_() for name in PREDICTED if layer + name in case.inputs}
            for layer in layers]


def ground_truth(case: Case) -> list[ClipTargets]:
    targets = []
    while (name := f"target.{len(targets)}") + ".masks" in case.inputs:
        masks = in_time(case, case.inputs[f"{name}.masks"]) > 0
        classes = case.inputs[f"{name}.labels"]
        targets.append(ClipTargets(masks=masks, classes=classes, void=~masks.any(0), track_ids=classes))
        if f"{name}.semantic_masks" in case.inputs:
            semantic = torch.cat([classes, torch.tensor([-1])])[first_tube(targets[-1])]
            assert torch.equal(semantic, case.inputs[f"{name}.semantic_masks"].view_as(semantic))
    return targets


def first_tube(target: ClipTargets) -> Tensor:
    """t h w: position of the first tube that covers each pixel, -1 where there is none."""
    position = torch.cat([target.masks, target.void[None]]).int().argmax(0)
    return torch.where(target.void, -1, position)


def compare(case: Case, leaves: list[dict[str, Tensor]], losses: list[dict[str, Tensor]]) -> None:
    names = {ours: theirs for terms in TERMS.values() for ours, theirs in terms.items()}
    for layer, terms in enumerate(losses):
        for name, loss in terms.items():
            suffix = f"_{layer - 1}" if layer else ""
            assert_close_to(case, f"loss.{names[name]}{suffix}", loss.mean())
    total = sum(loss.mean() for terms in losses for loss in terms.values())
    assert_close_to(case, "total", total)
    total.backward()
    for layer, leaf in enumerate(leaves):
        for name, tensor in leaf.items():
            output = f"grad.{f'aux.{layer - 1}.' if layer else ''}{name}"
            if output in case.outputs:
                assert_close_to(case, output, tensor.grad)
            else:
                assert tensor.grad is None, f"{case.path.stem}: the reference has no gradient of {name!r}"


def compare_matching(case: Case, class_logits: Tensor, mask_logits: Tensor, targets: PixelTargets) -> None:
    matches = match_queries(class_logits.detach(), mask_logits.detach(), targets)
    for item, tubes in enumerate(matches.tube_of_query):
        queries = torch.nonzero(tubes >= 0)[:, 0]
        assert_close_to(case, f"matching.{item}.query", queries)
        assert_close_to(case, f"matching.{item}.target", tubes[queries])
        for kind in ("mask_similarity", "class_similarity"):
            assert_close_to(case, f"matching.{item}.{kind}", getattr(matches, kind)[item, queries, tubes[queries]])


def in_time(case: Case, maps: Tensor) -> Tensor:
    """... h w of an image -> ... 1 h w; clips have their frames already."""
    return rearrange(maps, "... h w -> ... 1 h w") if case.family == "kmax_image" else maps
