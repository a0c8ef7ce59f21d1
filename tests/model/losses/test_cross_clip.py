from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.testing import assert_close

from model.contracts import ClipTargets, PixelEvidence, VideoPrediction
from model.losses.cross_clip import CrossClipCriterion, CrossClipLossConfig, MaskCrossClipLossConfig
from model.losses.kmax import KMaxCriterion, KMaxLossConfig
from tests.model.losses.world import QUERIES, clip, perfect_logits, prediction

CONFIG = CrossClipLossConfig(mask_weight=0.3)
TUBE_LINK = MaskCrossClipLossConfig()
both = pytest.mark.parametrize("config", [CONFIG, TUBE_LINK], ids=["video_kmax", "tube_link"])


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
    made = prediction(2)
    videos = [clip(3), clip(5, seed=1)]
    volume = KMaxCriterion(KMaxLossConfig(class_weight=4, dice_weight=4, mask_weight=0.3, pixel_weight=0,
                                          semantic_weight=0))(made, videos)
    assert_close(CrossClipCriterion(CONFIG)(*layers_of(made), dense_evidence(*videos)), volume)


@pytest.mark.parametrize("changes", [{"share_matching": False}, {"void_counts": True}], ids=str)
def test_the_official_switches_mean_the_same_on_clips_and_on_whole_videos(changes):
    made = prediction(2)
    videos = [clip(3), clip(5, seed=1)]
    config = KMaxLossConfig(class_weight=4, dice_weight=4, mask_weight=0.3, pixel_weight=0, semantic_weight=0)
    volume = KMaxCriterion(replace(config, **changes))(made, videos)
    found = CrossClipCriterion(replace(CONFIG, **changes))(*layers_of(made), dense_evidence(*videos))
    assert_close(found, volume)
    assert any(found[name] != loss for name, loss in KMaxCriterion(config)(made, videos).items())


def test_a_batch_equals_its_videos_one_by_one():
    made = prediction(2)
    videos = [clip(3), clip(0)]
    together = CrossClipCriterion(CONFIG)(*layers_of(made), dense_evidence(*videos))
    alone = []
    for item, video in enumerate(videos):
        predictions, masks = layers_of(made)
        one = [replace(layer, class_logits=layer.class_logits[item:item + 1]) for layer in predictions]
        alone.append(CrossClipCriterion(CONFIG)(one, [m[item:item + 1] for m in masks], dense_evidence(video)))
    for name, loss in together.items():
        assert_close(loss, (alone[0][name] + alone[1][name]) / 2)


def plain_tube_link(class_logits, mask_logits, video):
    """Cheapest match and losses of one layer on one video, all pixels, written down. mask_logits: n t h w."""
    masks = mask_logits.flatten(1)
    tubes = video.masks.flatten(1).float()
    losses = []
    for query in masks:
        losses.append([(F.binary_cross_entropy_with_logits(query, tube),
                        1 - (2 * (query.sigmoid() * tube).sum() + 1) / (query.sigmoid().sum() + tube.sum() + 1))
                       for tube in tubes])
    chance = class_logits.softmax(-1)[:, video.classes]
    cost = [[float(5 * (entropy + dice).detach()) for entropy, dice in row] for row in losses]
    queries, columns = linear_sum_assignment(np.array(cost) - 2 * chance.detach().numpy())
    labels = torch.full((QUERIES,), class_logits.shape[-1] - 1)
    labels[queries] = video.classes[columns]
    weights = torch.tensor([1.0] * (class_logits.shape[-1] - 1) + [0.1])
    entropy, dice = (sum(losses[q][c][part] for q, c in zip(queries, columns)) / len(queries) for part in (0, 1))
    return {"class": 2 * F.cross_entropy(class_logits, labels, weights), "mask": 5 * entropy, "dice": 5 * dice}


def test_tube_link_losses_of_every_pixel_equal_the_formula_layer_by_layer():
    made = prediction(1)
    video = clip(4)
    losses = CrossClipCriterion(TUBE_LINK)(*layers_of(made), dense_evidence(video))
    layers = [plain_tube_link(layer.class_logits[0], layer.mask_logits[0], video)
              for layer in (made, *made.auxiliary)]
    assert_close(losses, {**layers[0], **{f"{name}_aux": layers[1][name] + layers[2][name] for name in layers[0]}})


def test_a_weighted_sample_gives_the_tube_link_sums_on_average():
    """Half of the pixels of each clip, each for two; the match is certain, so only the losses vary."""
    video = clip(3)
    logits = [part / 10 for part in perfect_logits(video)]
    layers = [VideoPrediction(class_logits=logits[0], mask_embeddings=torch.empty(0), queries=torch.empty(0))]
    evidence = dense_evidence(video)
    masks = per_clip(logits[1] + torch.randn(logits[1].shape))
    exact = CrossClipCriterion(TUBE_LINK)(layers, [masks], evidence)
    count = evidence.tubes.shape[-1]
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(200):
        chosen = torch.randperm(count, generator=generator)[:count // 2]
        sample = replace(evidence, tubes=evidence.tubes[..., chosen], weights=2 * evidence.weights[..., chosen])
        drawn.append(CrossClipCriterion(TUBE_LINK)(layers, [masks[..., chosen]], sample))
    for name in ("mask", "dice"):
        values = torch.stack([losses[name] for losses in drawn])
        assert abs(values.mean() - exact[name]) < 4 * values.std() / len(drawn) ** 0.5 + 0.01 * exact[name]


def test_tube_link_weighs_videos_by_their_tubes():
    made = prediction(2)
    videos = [clip(3), clip(1, seed=1)]
    predictions, masks = layers_of(made)
    together = CrossClipCriterion(TUBE_LINK)(predictions, masks, dense_evidence(*videos))
    alone = [CrossClipCriterion(TUBE_LINK)(
        [replace(layer, class_logits=layer.class_logits[item:item + 1]) for layer in predictions],
        [m[item:item + 1] for m in masks], dense_evidence(video)) for item, video in enumerate(videos)]
    for name in ("mask", "dice_aux"):
        assert_close(together[name], (3 * alone[0][name] + alone[1][name]) / 4)


def test_a_video_without_tubes_trains_tube_link_classes_only():
    made = prediction(1)
    losses = CrossClipCriterion(TUBE_LINK)(*layers_of(made), dense_evidence(clip(0)))
    sum(losses.values()).backward()
    assert losses["mask"] == losses["dice"] == 0
    assert made.class_logits.grad.abs().sum() > 0
    assert made.mask_logits.grad.abs().sum() == 0


@both
def test_the_order_of_clips_changes_nothing(config):
    made = prediction(1)
    evidence = dense_evidence(clip(4))
    predictions, masks = layers_of(made)
    backwards = replace(evidence, tubes=evidence.tubes.flip(1), weights=evidence.weights.flip(1),
                        areas=tuple(areas.flip(0) for areas in evidence.areas))
    criterion = CrossClipCriterion(config)
    assert_close(criterion(predictions, [m.flip(1) for m in masks], backwards), criterion(predictions, masks, evidence))


@both
def test_pixels_of_weight_zero_change_nothing(config):
    made = prediction(1)
    evidence = dense_evidence(clip(4))
    predictions, masks = layers_of(made)
    longer = replace(evidence, tubes=torch.cat([evidence.tubes] * 2, 1), areas=tuple(
        torch.cat([areas, torch.zeros_like(areas)]) for areas in evidence.areas),
        weights=torch.cat([evidence.weights, torch.zeros_like(evidence.weights)], 1))
    criterion = CrossClipCriterion(config)
    repeated = criterion(predictions, [torch.cat([m, 5 * m], 1) for m in masks], longer)
    assert_close(repeated, criterion(predictions, masks, evidence))


def test_the_match_of_the_last_layer_serves_all():
    made = prediction(1, layers=1)
    evidence = dense_evidence(clip(4))
    predictions, masks = layers_of(made)
    criterion = CrossClipCriterion(CONFIG)
    swapped = criterion(predictions[::-1], masks[::-1], evidence)
    assert swapped["class"] != criterion(predictions, masks, evidence)["class_aux"]
    same = criterion([predictions[1]] * 2, [masks[1]] * 2, evidence)
    assert_close(same["dice"], same["dice_aux"])


@both
def test_more_tubes_than_queries_leave_the_rest_to_void(config):
    made = prediction(1)
    losses = CrossClipCriterion(config)(*layers_of(made), dense_evidence(clip(2 * QUERIES, void_rows=0)))
    sum(losses.values()).backward()
    assert all(torch.isfinite(layer.mask_logits.grad).all() for layer in (made, *made.auxiliary))


def test_masks_of_fewer_layers_than_predictions_are_refused():
    predictions, masks = layers_of(prediction(1))
    with pytest.raises(ValueError, match="zip"):
        CrossClipCriterion(CONFIG)(predictions, masks[1:], dense_evidence(clip(2)))
