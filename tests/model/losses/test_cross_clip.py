from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

from model.contracts import VideoPrediction
from model.losses.cross_clip import CrossClipCriterion, CrossClipLossConfig, MaskCrossClipLossConfig
from model.losses.kmax import KMaxCriterion, KMaxLossConfig
from model.losses.points import PointConfig
from model.losses.vita import VitaLossConfig
from tests.model.losses.world import QUERIES, as_videos, clip, dense_evidence, perfect_logits, random_prediction

CONFIG = CrossClipLossConfig(mask_weight=0.3)
TUBE_LINK = MaskCrossClipLossConfig()
both = pytest.mark.parametrize("config", [CONFIG, TUBE_LINK], ids=["video_kmax", "tube_link"])


def test_evidence_of_every_pixel_gives_the_losses_of_the_whole_volume():
    prediction = random_prediction(2)
    videos = [clip(3), clip(5, seed=1)]
    volume = KMaxCriterion(KMaxLossConfig(class_weight=4, dice_weight=4, mask_weight=0.3, pixel_weight=0,
                                          semantic_weight=0))(prediction, videos)
    assert_close(CrossClipCriterion(CONFIG)(*as_videos(prediction), dense_evidence(*videos)), volume)


@pytest.mark.parametrize("changes", [{"share_matching": False}, {"void_counts": True}], ids=str)
def test_the_official_switches_mean_the_same_on_clips_and_on_whole_videos(changes):
    prediction = random_prediction(2)
    videos = [clip(3), clip(5, seed=1)]
    config = KMaxLossConfig(class_weight=4, dice_weight=4, mask_weight=0.3, pixel_weight=0, semantic_weight=0)
    volume = KMaxCriterion(replace(config, **changes))(prediction, videos)
    losses = CrossClipCriterion(replace(CONFIG, **changes))(*as_videos(prediction), dense_evidence(*videos))
    assert_close(losses, volume)
    assert any(losses[name] != loss for name, loss in KMaxCriterion(config)(prediction, videos).items())


def test_a_batch_equals_its_videos_one_by_one():
    prediction = random_prediction(2)
    videos = [clip(3), clip(0)]
    together = CrossClipCriterion(CONFIG)(*as_videos(prediction), dense_evidence(*videos))
    alone = []
    for item, video in enumerate(videos):
        predictions, masks = as_videos(prediction)
        one = [replace(layer, class_logits=layer.class_logits[item:item + 1]) for layer in predictions]
        alone.append(CrossClipCriterion(CONFIG)(one, [m[item:item + 1] for m in masks], dense_evidence(video)))
    for name, loss in together.items():
        assert_close(loss, (alone[0][name] + alone[1][name]) / 2)


def plain_tube_link(class_logits, mask_logits, video):
    """The cheapest match and the losses of one layer on one video, from all pixels. mask_logits: n t h w.

    Each mask loss is the mean over the matched pairs.
    """
    masks = mask_logits.flatten(1)
    tubes = video.masks.flatten(1).float()
    losses = []
    for query in masks:
        losses.append([(F.binary_cross_entropy_with_logits(query, tube),
                        1 - (2 * (query.sigmoid() * tube).sum() + 1) / (query.sigmoid().sum() + tube.sum() + 1))
                       for tube in tubes])
    chance = class_logits.softmax(-1)[:, video.classes]
    costs = torch.tensor([[5 * (entropy + dice).item() for entropy, dice in row] for row in losses])
    queries, columns = linear_sum_assignment((costs.view(QUERIES, -1) - 2 * chance).detach().numpy())
    labels = torch.full((QUERIES,), class_logits.shape[-1] - 1)
    labels[queries] = video.classes[columns]
    weights = torch.tensor([1.0] * (class_logits.shape[-1] - 1) + [0.1])
    entropy, dice = (sum(losses[query][column][part] for query, column in zip(queries, columns)) / max(len(queries), 1)
                     for part in (0, 1))
    return {"class": 2 * F.cross_entropy(class_logits, labels, weights), "mask": 5 * entropy, "dice": 5 * dice}


@pytest.mark.parametrize("tubes", [1, 4, QUERIES, QUERIES + 1, 2 * QUERIES])
def test_tube_link_losses_of_every_pixel_equal_the_formula_layer_by_layer(tubes):
    prediction = random_prediction(1)
    video = clip(tubes)
    losses = CrossClipCriterion(TUBE_LINK)(*as_videos(prediction), dense_evidence(video))
    layers = [plain_tube_link(layer.class_logits[0], layer.mask_logits[0], video)
              for layer in (prediction, *prediction.auxiliary)]
    assert_close(losses, {**layers[0], **{f"{name}_aux": layers[1][name] + layers[2][name] for name in layers[0]}})


@pytest.mark.parametrize("official", [replace(TUBE_LINK, official_compat=True),
                                      VitaLossConfig(similarity_weight=0, official_compat=True)], ids=lambda c: c.kind)
def test_mask2former_and_vita_divide_by_all_tubes_where_there_are_more_than_queries(official):
    prediction = random_prediction(2)
    videos = [clip(QUERIES + 3), clip(2, seed=1)]
    ours = CrossClipCriterion(TUBE_LINK)(*as_videos(prediction), dense_evidence(*videos))
    theirs = CrossClipCriterion(official)(*as_videos(prediction), dense_evidence(*videos))
    for name in ("mask", "dice", "mask_aux", "dice_aux"):
        assert_close(theirs[name], ours[name] * (QUERIES + 2) / (QUERIES + 5))
    assert_close(theirs["class"], ours["class"])


@pytest.mark.parametrize("config", [CONFIG, TUBE_LINK, VitaLossConfig(similarity_weight=0)], ids=lambda c: c.kind)
@pytest.mark.parametrize("tubes", [3, 2 * QUERIES])
def test_tubes_without_a_stored_pixel_and_videos_without_any_pixel_give_finite_losses(config, tubes):
    prediction = random_prediction(2)
    evidence = dense_evidence(clip(tubes), clip(tubes, seed=1))
    missing = torch.isin(evidence.tubes, torch.tensor([0, 2])) | (torch.arange(2) == 1)[:, None, None]
    sample = replace(evidence, weights=evidence.weights * ~missing)
    losses = config.build()(*as_videos(prediction), sample)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    for layer in (prediction, *prediction.auxiliary):
        assert layer.mask_logits.grad.isfinite().all()
        assert layer.class_logits.grad.isfinite().all()


def test_a_weighted_sample_gives_the_tube_link_sums_on_average():
    """Half of the pixels of each clip, each standing for two; the match is certain, so only the losses vary."""
    video = clip(3)
    logits = [part / 10 for part in perfect_logits(video)]
    layers = [VideoPrediction(class_logits=logits[0], mask_embeddings=torch.empty(0), queries=torch.empty(0))]
    evidence = dense_evidence(video)
    masks = rearrange(logits[1] + torch.randn(logits[1].shape), "b n k h w -> b k n (h w)")
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
    prediction = random_prediction(2)
    videos = [clip(3), clip(1, seed=1)]
    predictions, masks = as_videos(prediction)
    together = CrossClipCriterion(TUBE_LINK)(predictions, masks, dense_evidence(*videos))
    alone = [CrossClipCriterion(TUBE_LINK)(
        [replace(layer, class_logits=layer.class_logits[item:item + 1]) for layer in predictions],
        [m[item:item + 1] for m in masks], dense_evidence(video)) for item, video in enumerate(videos)]
    for name in ("mask", "dice_aux"):
        assert_close(together[name], (3 * alone[0][name] + alone[1][name]) / 4)


def test_a_video_without_tubes_trains_tube_link_classes_only():
    prediction = random_prediction(1)
    losses = CrossClipCriterion(TUBE_LINK)(*as_videos(prediction), dense_evidence(clip(0)))
    sum(losses.values()).backward()
    assert losses["mask"] == losses["dice"] == 0
    assert prediction.class_logits.grad.abs().sum() > 0
    assert prediction.mask_logits.grad.abs().sum() == 0


@both
def test_the_order_of_clips_changes_nothing(config):
    prediction = random_prediction(1)
    evidence = dense_evidence(clip(4))
    predictions, masks = as_videos(prediction)
    backwards = replace(evidence, tubes=evidence.tubes.flip(1), weights=evidence.weights.flip(1),
                        areas=tuple(areas.flip(0) for areas in evidence.areas))
    criterion = CrossClipCriterion(config)
    assert_close(criterion(predictions, [m.flip(1) for m in masks], backwards), criterion(predictions, masks, evidence))


@both
def test_pixels_of_weight_zero_change_nothing(config):
    prediction = random_prediction(1)
    evidence = dense_evidence(clip(4))
    predictions, masks = as_videos(prediction)
    longer = replace(evidence, tubes=torch.cat([evidence.tubes] * 2, 1), areas=tuple(
        torch.cat([areas, torch.zeros_like(areas)]) for areas in evidence.areas),
        weights=torch.cat([evidence.weights, torch.zeros_like(evidence.weights)], 1))
    criterion = CrossClipCriterion(config)
    repeated = criterion(predictions, [torch.cat([m, 5 * m], 1) for m in masks], longer)
    assert_close(repeated, criterion(predictions, masks, evidence))


def test_the_match_of_the_last_layer_serves_all():
    prediction = random_prediction(1, layers=1)
    evidence = dense_evidence(clip(4))
    predictions, masks = as_videos(prediction)
    criterion = CrossClipCriterion(CONFIG)
    swapped = criterion(predictions[::-1], masks[::-1], evidence)
    assert swapped["class"] != criterion(predictions, masks, evidence)["class_aux"]
    same = criterion([predictions[1]] * 2, [masks[1]] * 2, evidence)
    assert_close(same["dice"], same["dice_aux"])


@both
def test_more_tubes_than_queries_leave_the_rest_to_void(config):
    prediction = random_prediction(1)
    losses = CrossClipCriterion(config)(*as_videos(prediction), dense_evidence(clip(2 * QUERIES, void_rows=0)))
    sum(losses.values()).backward()
    assert all(torch.isfinite(layer.mask_logits.grad).all() for layer in (prediction, *prediction.auxiliary))


def test_masks_of_fewer_layers_than_predictions_are_refused():
    predictions, masks = as_videos(random_prediction(1))
    with pytest.raises(ValueError, match="zip"):
        CrossClipCriterion(CONFIG)(predictions, masks[1:], dense_evidence(clip(2)))


@pytest.mark.parametrize("config", [TUBE_LINK, VitaLossConfig(similarity_weight=0.0)], ids=["tube_link", "vita"])
def test_points_gather_where_a_matched_mask_is_uncertain_and_both_mask_losses_are_means_over_them(config):
    """Plainly: 3/4 of the points on the least certain quarter of the pixels, the rest evenly; VITA frame by frame."""
    video = clip(3)
    classes, masks = perfect_logits(video)
    masks = masks / 20 + torch.randn(masks.shape, generator=torch.Generator().manual_seed(3))
    prediction = replace(random_prediction(1, layers=0), class_logits=classes, mask_logits=masks)
    points = PointConfig(count=1000)
    losses = CrossClipCriterion(replace(config, points=points))(*as_videos(prediction), dense_evidence(video))
    groups = video.void.shape[0] if isinstance(config, VitaLossConfig) else 1
    entropy = []
    dice = []
    for tube in range(3):
        logits = masks[0, tube].reshape(groups, -1)
        truth = video.masks[tube].reshape(groups, -1).float()
        counts = torch.full_like(logits, 250 / logits.shape[1])
        quarter = logits.shape[1] // 4
        for row, order in zip(counts, logits.abs().argsort(1)):
            row[order[:quarter]] += 750 / quarter
        both = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        entropy.append((counts * both).sum() / counts.sum())
        covered = (counts * logits.sigmoid() * truth).sum()
        dice.append(1 - (2 * covered + 1) / ((counts * (logits.sigmoid() + truth)).sum() + 1))
    assert_close(losses["mask"], 5 * torch.stack(entropy).mean())
    assert_close(losses["dice"], 5 * torch.stack(dice).mean())
    plain = CrossClipCriterion(config)(*as_videos(prediction), dense_evidence(video))
    assert losses["mask"] > 1.2 * plain["mask"]         # more of the hard pixels


def test_points_do_not_depend_on_how_many_pixels_an_entry_stands_for_as_long_as_all_stand_for_as_many():
    video = clip(2)
    prediction = random_prediction(1, layers=0)
    config = replace(TUBE_LINK, points=PointConfig(count=500), no_object_weight=1.0)
    dense = dense_evidence(video)
    doubled = replace(dense, weights=dense.weights * 2, areas=tuple(2 * area for area in dense.areas))
    for name, loss in CrossClipCriterion(config)(*as_videos(prediction), dense).items():
        assert_close(CrossClipCriterion(config)(*as_videos(prediction), doubled)[name], loss)
