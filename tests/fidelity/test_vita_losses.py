"""VITA's losses on whole clips, their gradients, the matching and the similarity loss equal the public code."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from einops import rearrange
from torch import Tensor

from model.contracts import ClipPrediction, ClipTargets, LayerPrediction, VideoPrediction
from model.losses.binary_masks import MatchingCosts
from model.losses.mask2former import Mask2FormerCriterion, Mask2FormerLossConfig
from model.losses.points import Draw, PointConfig
from model.losses.targets import NO_TUBE
from model.losses.vita import queries_to_compare, similarity_loss
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled
from tests.fidelity.test_tubelink_losses import recorded

NAMES = {"vita_labels": {"class": "ce"}, "vita_masks": {"mask": "mask", "dice": "dice"}, "fg_sim": {"sim": "sim"}}


def clips_of(case: Case) -> list[dict[str, Tensor]]:
    """Labels, identities (m t; -1: not in this frame) and masks of the objects of each clip."""
    count = sum(name.startswith("clip_target.") and name.endswith(".labels") for name in case.inputs)
    return [{part: case.inputs[f"clip_target.{clip}.{part}"] for part in ("labels", "ids", "masks")}
            for clip in range(count)]


def answers(match: Mapping[str, Tensor], identities: Tensor, *, queries: int) -> Tensor:
    """A recorded match of queries and objects -> the identity each query answers for, n; NO_TUBE is -1, as there."""
    found = torch.full((queries,), NO_TUBE)
    found[match["query"]] = identities[match["target"]]
    return found


def read_match(case: Case, name: str) -> dict[str, Tensor]:
    return {part: case.inputs[f"{name}.{part}"] for part in ("query", "target")}


def frame_answers(case: Case) -> Tensor:
    """(l b) t n: of every frame query; the frames of all clips are numbered one after the other."""
    layers, clips, frames, queries, _ = case.inputs["pred_fq_embed"].shape
    targets = [{part: case.inputs[f"frame_target.{frame}.{part}"] for part in ("labels", "ids")}
               for frame in range(clips * frames)]      # the match is given, so their labels say nothing more
    return torch.stack([
        torch.stack([answers(read_match(case, f"frame_match.{layer}.{frame}"), targets[frame]["ids"], queries=queries)
                     for frame in range(clip * frames, (clip + 1) * frames)])
        for layer in range(layers) for clip in range(clips)])


def similarity_term(case: Case, of_clips: Tensor) -> Tensor:
    """of_clips: (l b) n, the identity each clip query answers for."""
    embeddings = {name: rearrange(case.inputs[f"pred_{name}_embed"].requires_grad_(), "l b ... -> (l b) ...")
                  for name in ("fq", "cq") if f"pred_{name}_embed" in case.inputs}
    prediction = VideoPrediction(
        class_logits=torch.empty(0), mask_embeddings=torch.empty(0), queries=torch.empty(0),
        clip_similarity=embeddings["fq"],
        video_similarity=embeddings["cq"] if case.arguments["sim_use_clip"] else None)
    return similarity_loss(*queries_to_compare(prediction, frame_answers(case), of_clips))


def compare_gradients(case: Case, total: Tensor) -> None:
    total.backward()
    for name in [name for name in case.outputs if name.startswith("grad.")]:
        assert_close_to(case, name, case.inputs[name.removeprefix("grad.")].grad)


def similarity(case: Case) -> None:
    assert all(clip["labels"].amax() < case.arguments["num_classes"] for clip in clips_of(case))
    clips = clips_of(case)
    (layers, _, queries, _) = case.inputs["pred_cq_embed"].shape
    of_clips = torch.stack([answers(read_match(case, f"clip_match.{item}"), clips[item % len(clips)]["ids"].amax(1),
                                    queries=queries) for item in range(layers * len(clips))])
    loss = similarity_term(case, of_clips)
    assert_close_to(case, "loss", loss)
    compare_gradients(case, loss)


def criterion_of(case: Case) -> Mask2FormerCriterion:
    a = case.arguments
    return Mask2FormerCriterion(Mask2FormerLossConfig(
        frames="apart", no_object_weight=a["eos_coef"], official_compat=True,
        costs=MatchingCosts(class_weight=a["class_weight"], mask_weight=a["mask_weight"],
                            dice_weight=a["dice_weight"]),
        points=PointConfig(count=a["num_points"], oversample=a["oversample_ratio"],
                           importance=a["importance_sample_ratio"])))


def predicted(case: Case) -> list[LayerPrediction]:
    """The final prediction, then the auxiliary ones; queries of L frame decoder layers are one batch with the clips."""
    count = sum(name.startswith("aux.") and name.endswith(".pred_logits") for name in case.inputs)
    return [LayerPrediction(**{field: rearrange(case.inputs[f"{prefix}pred_{name}"].requires_grad_(),
                                                "l b ... -> (l b) ...")
                               for field, name in (("class_logits", "logits"), ("mask_logits", "masks"))})
            for prefix in ("", *(f"aux.{index}." for index in range(count)))]


def drawn(case: Case) -> Draw:
    """The recorded numbers; where the reference had no mask losses, it drew for the matching alone."""
    numbers = recorded(case)
    matching = (1, case.arguments["num_points"], 2)
    if "vita_masks" in case.arguments["losses"]:
        return numbers
    return lambda *shape: numbers(*shape) if shape == matching else torch.rand(shape)


def all_losses(case: Case) -> None:
    """The reference draws for the final prediction first, our criterion for what it is given as final last."""
    clips = clips_of(case)
    criterion = criterion_of(case)
    layers = predicted(case)
    assert layers[0].class_logits.shape[-1] == case.arguments["num_classes"] + 1
    items = len(layers[0].class_logits)
    targets = [ClipTargets(masks=clip["masks"] > 0, classes=clip["labels"], track_ids=clip["ids"].amax(1),
                           void=~(clip["masks"] > 0).any(0)) for clip in clips] * (items // len(clips))
    *first, last = layers
    given = ClipPrediction(class_logits=last.class_logits, mask_logits=last.mask_logits, auxiliary=tuple(first),
                           queries=torch.empty(0), mask_embeddings=torch.empty(0), pixel_features=torch.empty(0))
    of_last, *of_first = criterion.layer_losses(given, targets, draw=drawn(case))
    tubes = criterion.match(layers[0], criterion.truth(targets), drawn(case))
    identities = torch.stack([torch.where(tube == NO_TUBE, NO_TUBE, target.track_ids[tube.clamp(min=0)])
                              for tube, target in zip(tubes, targets)])
    losses = [*of_first, of_last]
    losses[0]["sim"] = similarity_term(case, identities)
    total = compare_losses(case, losses)
    for item, tube in enumerate(tubes):
        (queries,) = (tube != NO_TUBE).nonzero(as_tuple=True)
        assert_close_to(case, f"matching.{item}.query", queries)
        assert_close_to(case, f"matching.{item}.target", tube[queries])
    compare_gradients(case, total)


def compare_losses(case: Case, losses: list[dict[str, Tensor]]) -> Tensor:
    """Every loss that was asked for, unweighted, of the final prediction and then of the auxiliary ones; their sum."""
    asked = {ours: theirs for kind in case.arguments["losses"] for ours, theirs in NAMES[kind].items()}
    total = 0
    for index, terms in enumerate(losses):
        for name in terms.keys() & asked.keys():
            assert_close_to(case, f"loss.loss_vita_{asked[name]}{f'_{index - 1}' if index else ''}", terms[name])
            total = total + terms[name]
    assert_close_to(case, "total", total)
    return total


PROCEDURES = {"vita_similarity": similarity, "vita_criterion": all_losses}


@pytest.mark.parametrize("path", cases("vita_losses"), ids=case_id)
def test_losses_gradients_and_assignment_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure not in PROCEDURES:
            raise unhandled(case)
        PROCEDURES[case.procedure](case)
