from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.testing import assert_close

from model.contracts import ClipTargets, PixelEvidence, VideoPrediction
from model.losses.cross_clip import CrossClipCriterion, CrossClipLossConfig
from model.losses.kmax import KMaxCriterion, KMaxLossConfig
from tests.model.losses.world import QUERIES, clip, prediction

CONFIG = CrossClipLossConfig(mask_weight=0.3)


def dense_evidence(*videos: ClipTargets) -> PixelEvidence:
    """Every pixel; each frame is a clip."""
    tubes = torch.stack([torch.where(video.void, -1, video.masks.int().argmax(0) if len(video.masks) else -1)
                         for video in videos])
    return PixelEvidence(
        pixel_features=torch.empty(0), tubes=rearrange(tubes, "b k h w -> b k (h w)"),
        weights=torch.ones(tubes.flatten(2).shape), classes=tuple(video.classes for video in videos),
        areas=tuple(rearrange(video.masks, "m k h w -> k m (h w)").sum(-1).float() for video in videos))


def per_clip(masks: Tensor) -> Tensor:
    return rearrange(masks, "b n k h w -> b k n (h w)")


def layers_of(made) -> tuple[list[VideoPrediction], list[Tensor]]:
    """A clip's prediction as that of a video, last layer last."""
    layers = [*made.auxiliary, made]
    return ([VideoPrediction(class_logits=layer.class_logits, mask_embeddings=torch.empty(0), queries=torch.empty(0))
             for layer in layers], [per_clip(layer.mask_logits) for layer in layers])


def test_evidence_of_every_pixel_gives_the_losses_of_the_whole_volume():
    made, videos = prediction(2), [clip(3), clip(5, seed=1)]
    volume = KMaxCriterion(KMaxLossConfig(class_weight=4, dice_weight=4, mask_weight=0.3, pixel_weight=0,
                                          semantic_weight=0))(made, videos)
    assert_close(CrossClipCriterion(CONFIG)(*layers_of(made), dense_evidence(*videos)), volume)


@pytest.mark.parametrize("changes", [{"share_matching": False}, {"void_counts": True}], ids=str)
def test_the_official_switches_mean_the_same_on_clips_and_on_whole_videos(changes):
    made, videos = prediction(2), [clip(3), clip(5, seed=1)]
    config = KMaxLossConfig(class_weight=4, dice_weight=4, mask_weight=0.3, pixel_weight=0, semantic_weight=0)
    volume = KMaxCriterion(replace(config, **changes))(made, videos)
    found = CrossClipCriterion(replace(CONFIG, **changes))(*layers_of(made), dense_evidence(*videos))
    assert_close(found, volume)
    assert any(found[name] != loss for name, loss in KMaxCriterion(config)(made, videos).items())


def test_a_batch_equals_its_videos_one_by_one():
    made, videos = prediction(2), [clip(3), clip(0)]
    together = CrossClipCriterion(CONFIG)(*layers_of(made), dense_evidence(*videos))
    alone = []
    for item, video in enumerate(videos):
        predictions, masks = layers_of(made)
        one = [replace(layer, class_logits=layer.class_logits[item:item + 1]) for layer in predictions]
        alone.append(CrossClipCriterion(CONFIG)(one, [m[item:item + 1] for m in masks], dense_evidence(video)))
    for name, loss in together.items():
        assert_close(loss, (alone[0][name] + alone[1][name]) / 2)


def test_the_order_of_clips_changes_nothing():
    made, evidence = prediction(1), dense_evidence(clip(4))
    predictions, masks = layers_of(made)
    backwards = replace(evidence, tubes=evidence.tubes.flip(1), weights=evidence.weights.flip(1),
                        areas=tuple(areas.flip(0) for areas in evidence.areas))
    criterion = CrossClipCriterion(CONFIG)
    assert_close(criterion(predictions, [m.flip(1) for m in masks], backwards), criterion(predictions, masks, evidence))


def test_pixels_of_weight_zero_change_nothing():
    made, evidence = prediction(1), dense_evidence(clip(4))
    predictions, masks = layers_of(made)
    longer = replace(evidence, tubes=torch.cat([evidence.tubes] * 2, 1), areas=tuple(
        torch.cat([areas, torch.zeros_like(areas)]) for areas in evidence.areas),
        weights=torch.cat([evidence.weights, torch.zeros_like(evidence.weights)], 1))
    criterion = CrossClipCriterion(CONFIG)
    repeated = criterion(predictions, [torch.cat([m, 5 * m], 1) for m in masks], longer)
    assert_close(repeated, criterion(predictions, masks, evidence))


def test_the_match_of_the_last_layer_serves_all():
    made, evidence = prediction(1, layers=1), dense_evidence(clip(4))
    predictions, masks = layers_of(made)
    criterion = CrossClipCriterion(CONFIG)
    swapped = criterion(predictions[::-1], masks[::-1], evidence)
    assert swapped["class"] != criterion(predictions, masks, evidence)["class_aux"]
    same = criterion([predictions[1]] * 2, [masks[1]] * 2, evidence)
    assert_close(same["dice"], same["dice_aux"])


def test_more_tubes_than_queries_leave_the_rest_to_void():
    made = prediction(1)
    losses = CrossClipCriterion(CONFIG)(*layers_of(made), dense_evidence(clip(2 * QUERIES, void_rows=0)))
    sum(losses.values()).backward()
    assert all(torch.isfinite(layer.mask_logits.grad).all() for layer in (made, *made.auxiliary))


def test_masks_of_fewer_layers_than_predictions_are_refused():
    predictions, masks = layers_of(prediction(1))
    with pytest.raises(ValueError, match="zip"):
        CrossClipCriterion(CONFIG)(predictions, masks[1:], dense_evidence(clip(2)))
