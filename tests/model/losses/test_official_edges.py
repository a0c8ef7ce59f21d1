"""The kMaX losses equal the official formulas at their edges: no tubes, as many as queries, more, empty, overlapping.

The formulas are written down plainly, one clip or video at a time, after `kmax_deeplab/modeling/{criterion,matcher}.py`
in bytedance/kmax-deeplab and `maxtron_deeplab/modeling/{wc_criterion,cc_criterion,matcher}.py` in TACJu/MaXTron.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.testing import assert_close

from model.contracts import ClipPrediction, ClipTargets, LayerPrediction
from model.losses.cross_clip import CrossClipLossConfig
from model.losses.kmax import KMaxCriterion, KMaxLossConfig
from tests.model.losses.world import (
    CLASSES,
    FRAMES,
    HEIGHT,
    QUERIES,
    WIDTH,
    as_videos,
    clip,
    dense_evidence,
    random_prediction,
)

EACH = KMaxLossConfig(class_weight=1, mask_weight=1, dice_weight=1, pixel_samples=9999, semantic_samples=0)
COUNTS = [[0], [QUERIES], [QUERIES + 1], [2 * QUERIES], [3, 2 * QUERIES], [0, QUERIES + 2], [QUERIES + 1, 3], [3, 0]]


@dataclass(frozen=True, kw_only=True)
class OfficialTargets:
    """Targets in the order of the queries, as `process_gt` prepares them."""

    masks: Tensor           # n p
    void: Tensor            # p bool
    labels: Tensor          # n
    class_weights: Tensor   # n
    mask_weights: Tensor    # n


def official_targets(layer: LayerPrediction | ClipPrediction, item: int, target: ClipTargets, config: KMaxLossConfig
                     ) -> OfficialTargets:
    probability = layer.class_logits[item].detach().softmax(-1)[:, target.classes]                  # n m
    masks = layer.mask_logits[item].detach().flatten(1).softmax(0)
    tubes = target.masks.flatten(1).float()
    compared = masks
    if not config.void_counts or config.official_compat:
        compared = masks * (tubes.sum(0) > 0)
    dice = compared @ tubes.T / ((compared.sum(1)[:, None] + tubes.sum(1)) / 2 + 1e-5)
    queries, columns = linear_sum_assignment(-(dice * probability).numpy())

    matched = torch.zeros_like(masks)
    matched[queries] = tubes[columns]
    if config.normalise_overlaps:
        matched = matched / matched.sum(0).clamp(min=1)
    void = matched.sum(0) < 1 - 1e-6
    labels = torch.full((QUERIES,), CLASSES)
    labels[queries] = target.classes[columns]
    class_weights = (masks * void).sum(1) / (masks.sum(1) + 1e-5)
    class_weights[queries] = dice[queries, columns]
    mask_weights = torch.zeros(QUERIES)
    mask_weights[queries] = probability[queries, columns].clamp(min=1e-5)
    return OfficialTargets(masks=matched, void=void, labels=labels, class_weights=class_weights.clamp(min=1e-5),
                           mask_weights=mask_weights)


def official_losses(layer: LayerPrediction | ClipPrediction, item: int, truth: OfficialTargets, config: KMaxLossConfig
                    ) -> dict[str, Tensor]:
    alpha = torch.where(truth.labels == CLASSES, 0.25, 0.75)
    classes = F.cross_entropy(layer.class_logits[item], truth.labels, reduction="none") * alpha * truth.class_weights
    logits = layer.mask_logits[item].flatten(1)
    entropy = F.cross_entropy(logits.T, truth.masks.T, reduction="none").masked_fill(truth.void, 0)
    masks = logits.softmax(0)
    if not config.void_counts:
        masks = masks.masked_fill(truth.void, 0)
    dice = 1 - (2 * (masks * truth.masks).sum(1) + 1) / (masks.sum(1) + truth.masks.sum(1) + 1)
    features = layer.pixel_features[item].flatten(1)
    same = truth.masks.T @ truth.masks
    same = same / same.sum(0).clamp(min=1)                  # columns are distributions
    alike = F.cross_entropy((features.T @ features / 0.3)[None], same[None], reduction="none")
    return {"class": not_zero_mean(classes), "mask": not_zero_mean(entropy), "pixel": not_zero_mean(alike),
            "dice": (dice * truth.mask_weights).sum() * 0.75 / QUERIES}


def not_zero_mean(loss: Tensor) -> Tensor:
    return loss.sum() / (loss != 0).sum().clamp(min=1)


def official(prediction: ClipPrediction, targets: list[ClipTargets], config: KMaxLossConfig) -> list[dict[str, Tensor]]:
    """Batch means by name: of the final prediction, then of each auxiliary layer."""
    layers = []
    for layer in (prediction, *prediction.auxiliary):
        source = prediction if config.share_matching else layer
        losses = [official_losses(layer, item, official_targets(source, item, target, config), config)
                  for item, target in enumerate(targets)]
        layers.append({name: torch.stack([terms[name] for terms in losses]).mean() for name in losses[0]})
    return layers


def disjoint(tubes: int, seed: int) -> ClipTargets:
    return clip(tubes, seed=seed)


def overlapping(tubes: int, seed: int) -> ClipTargets:
    """Every tube also covers random pixels below the void."""
    target = clip(tubes, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    masks = target.masks | ((torch.rand(target.masks.shape, generator=generator) < 0.1) & ~target.void)
    return replace(target, masks=masks, void=~masks.any(0))


def partly_empty(tubes: int, seed: int) -> ClipTargets:
    """Every other tube has no pixel."""
    target = clip(tubes, seed=seed)
    masks = target.masks.clone()
    masks[::2] = False
    return replace(target, masks=masks, void=~masks.any(0))


worlds = pytest.mark.parametrize("world", [disjoint, overlapping, partly_empty], ids=lambda world: world.__name__)
switches = pytest.mark.parametrize("changes", [{}, {"share_matching": False}, {"void_counts": True}], ids=str)


def batch_of(counts: list[int], world, seed: int) -> tuple[ClipPrediction, list[ClipTargets]]:
    return (random_prediction(len(counts), seed=seed),
            [world(count, 10 * seed + item) for item, count in enumerate(counts)])


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@worlds
@switches
def test_losses_of_clips_equal_the_official_formulas(counts, world, changes):
    config = replace(EACH, **changes)
    for seed in range(3):
        prediction, targets = batch_of(counts, world, seed)
        losses = KMaxCriterion(config).layer_losses(prediction, targets, draw=torch.rand)
        for ours, theirs in zip(losses, official(prediction, targets, config), strict=True):
            for name, loss in theirs.items():
                assert_close(ours[name].mean(), loss, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@worlds
@switches
def test_losses_of_videos_equal_the_official_formulas(counts, world, changes):
    terms = {"class_weight": 1, "mask_weight": 1, "dice_weight": 1}
    criterion = CrossClipLossConfig(**terms, **changes).build()
    for seed in range(3):
        prediction, targets = batch_of(counts, world, seed)
        losses = criterion.layer_losses(*as_videos(prediction), dense_evidence(*targets))
        expected = official(prediction, targets, replace(EACH, **changes))
        for ours, theirs in zip([losses[0], *losses[1:]], expected, strict=True):
            for name, loss in ours.items():
                assert_close(loss.mean(), theirs[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("counts", [[3], [2 * QUERIES]], ids=str)
@pytest.mark.parametrize("world", [overlapping, disjoint], ids=lambda world: world.__name__)
def test_images_of_kmax_deeplab_share_pixels_and_leave_void_out_of_the_matching(counts, world):
    config = replace(EACH, normalise_overlaps=True, void_counts=True, official_compat=True)
    for seed in range(3):
        prediction, targets = batch_of(counts, world, seed)
        losses = KMaxCriterion(config).layer_losses(prediction, targets, draw=torch.rand)
        for ours, theirs in zip(losses, official(prediction, targets, config), strict=True):
            for name, loss in theirs.items():
                assert_close(ours[name].mean(), loss, atol=1e-5, rtol=1e-4)
        repaired = KMaxCriterion(replace(config, official_compat=False)).layer_losses(prediction, targets,
                                                                                      draw=torch.rand)
        assert not torch.allclose(repaired[0]["class"], losses[0]["class"])


def official_semantic(prediction: ClipPrediction, target: ClipTargets, *, samples: int, uniform: Tensor) -> Tensor:
    """`aux_semantic_loss` of one clip; the targets are read with a stride where the logits are coarser."""
    logits = prediction.semantic_logits[0]
    truth = official_targets(prediction, 0, target, EACH)
    area = (truth.masks * truth.masks.sum(1, keepdim=True)).sum(0)
    keys = (truth.void.numel() / area.clamp(min=1)).log() * EACH.semantic_temperature - 99_999.0 * truth.void
    labels = torch.where(target.void, CLASSES, target.classes[target.masks.int().argmax(0)])
    stride = (WIDTH - 1) // (logits.shape[-1] - 1)
    keys, labels = (part.view(FRAMES, HEIGHT, WIDTH)[:, ::stride, ::stride].flatten() for part in (keys, labels))
    chosen = (keys - (-uniform.log()).log()).topk(samples).indices if samples else torch.arange(len(keys))
    loss = F.cross_entropy(logits.flatten(1)[:, chosen].T, labels[chosen], ignore_index=CLASSES, reduction="none")
    return not_zero_mean(loss)


@pytest.mark.parametrize("samples", [0, 5])
@pytest.mark.parametrize("tubes", [3, 2 * QUERIES])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (4, 5), (3, 4)], ids=str)
def test_semantic_logits_of_lower_resolution_are_compared_with_every_s_th_pixel(size, tubes, samples):
    prediction = random_prediction(1)
    logits = torch.randn(1, CLASSES + 1, FRAMES, *size)
    prediction = replace(prediction, semantic_logits=logits)
    config = replace(EACH, semantic_samples=samples, pixel_weight=0)
    uniform = torch.rand(FRAMES * size[0] * size[1])
    target = clip(tubes)
    losses = KMaxCriterion(config).layer_losses(prediction, [target], draw=lambda *shape: uniform.view(shape))
    assert_close(losses[0]["semantic"][0], official_semantic(prediction, target, samples=samples, uniform=uniform))


@pytest.mark.parametrize("size", [(4, 4), (2, 3), (16, 20), (8, 4), (1, 1)], ids=str)
def test_semantic_logits_that_no_stride_reaches_are_refused_with_the_sizes(size):
    prediction = random_prediction(1)
    prediction = replace(prediction, semantic_logits=torch.randn(1, CLASSES + 1, FRAMES, *size))
    with pytest.raises(ValueError, match=rf"\(2, {size[0]}, {size[1]}\) do not fit targets of \(2, 8, 10\)"):
        KMaxCriterion(EACH)(prediction, [clip(3)])
