"""The kMaX losses, their gradients and the matching equal the official criteria, for clips, images and whole videos."""

from __future__ import annotations

from itertools import repeat

import pytest
import torch
from einops import rearrange, reduce
from torch import Tensor

from model.contracts import ClipPrediction, ClipTargets, LayerPrediction, PixelEvidence, VideoPrediction
from model.losses.cross_clip import CrossClipCriterion, CrossClipLossConfig
from model.losses.kmax import KMaxCriterion, KMaxLossConfig
from model.losses.matching import match_queries
from model.losses.targets import PixelTargets, clip_targets, video_targets
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled

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
    return {f"{term}_weight": float(term in terms) for of in TERMS.values() for term in of}


def image_config(case: Case) -> KMaxLossConfig:
    """kMaX-DeepLab on images; temperatures that are not recorded are its defaults."""
    arguments = case.arguments
    return KMaxLossConfig(
        **wanted(case), normalise_overlaps=True, pixel_samples=arguments["pixel_sample_k"],
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


def run_clips(case: Case, config: KMaxLossConfig) -> None:
    """An image is a clip of one frame."""
    leaves = predicted(case)
    targets = ground_truth(case)
    frames = targets[0].void.shape[0]
    layers = [LayerPrediction(class_logits=leaf["pred_logits"], mask_logits=in_time(case, leaf["pred_masks"]),
                              pixel_features=in_time(case, leaf["pixel_feature"]) if "pixel_feature" in leaf else None)
              for leaf in leaves]
    semantic = leaves[0].get("aux_semantic_pred")
    final = ClipPrediction(
        class_logits=layers[0].class_logits, mask_logits=layers[0].mask_logits, auxiliary=tuple(layers[1:]),
        pixel_features=layers[0].pixel_features, queries=torch.empty(0), mask_embeddings=torch.empty(0),
        semantic_logits=None if semantic is None else rearrange(semantic, "b c (t h) w -> b c t h w", t=frames))
    draws = [case.inputs[f"uniform.{draw}"] for draw in range(sum(name.startswith("uniform") for name in case.inputs))]
    sampled = [name for name in case.arguments["losses"] if name == "pixels" or (
        name == "aux_semantic" and config.semantic_samples)]
    if sampled == ["aux_semantic", "pixels"]:     # the reference draws in the order of its list, we in the other
        draws[:2] = reversed(draws[:2])
    everything = torch.full((len(targets), targets[0].void.numel()), 0.5)       # all pixels drawn: any numbers will do
    compare(case, leaves, KMaxCriterion(config).layer_losses(final, targets, draws=draws or repeat(everything)))

    compare_matching(case, final.class_logits, final.mask_logits.flatten(2), clip_targets(targets))
    assert final.class_logits.shape[-1] == case.arguments["num_classes"] + 1


def run_videos(case: Case) -> None:
    """Every pixel of the video is evidence of weight 1; each frame is a clip."""
    leaves = predicted(case)
    targets = ground_truth(case)
    tubes = torch.stack([first_tube(target) for target in targets])
    tubes = rearrange(tubes, "b T h w -> b T (h w)")
    evidence = PixelEvidence(
        pixel_features=torch.empty(0), tubes=tubes, weights=torch.ones(tubes.shape),
        classes=tuple(target.classes for target in targets),
        areas=tuple(reduce(target.masks.float(), "m T h w -> T m", "sum") for target in targets))
    layers = [*leaves[1:], leaves[0]]                                           # the last one counts
    predictions = [VideoPrediction(class_logits=layer["pred_logits"], mask_embeddings=torch.empty(0),
                                   queries=torch.empty(0)) for layer in layers]
    mask_logits = [rearrange(layer["pred_masks"], "b n T h w -> b T n (h w)") for layer in layers]
    config = CrossClipLossConfig(
        **{name: weight for name, weight in wanted(case).items()
           if name in ("class_weight", "mask_weight", "dice_weight")},
        share_matching=case.arguments["share_final_matching"], void_counts=not case.arguments["masking_void_pixel"])
    compare(case, leaves, CrossClipCriterion(config).layer_losses(predictions, mask_logits, evidence))

    compare_matching(case, layers[-1]["pred_logits"], layers[-1]["pred_masks"].flatten(2), video_targets(evidence))
    assert layers[-1]["pred_logits"].shape[-1] == case.arguments["num_classes"] + 1
    for unused in ("pixel_insdis_temperature", "aux_semantic_temperature", "sample_k"):
        case.arguments.get(unused)     # a setting of terms that stage two does not have


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
