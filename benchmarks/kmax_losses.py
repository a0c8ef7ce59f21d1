"""The stage-one criterion, forward and backward, against its formulas written out with whole matrices.

The baseline computes every term of the formulas in full (the softmax of all queries at all pixels, a target of the same
size, the samples-by-samples target of the pixel loss), and autograd stores all of them. Sizes: the tiny recipe, and the
full resolution of VIPSeg (769 x 1345 at stride 4, two frames, 128 queries, seven supervised outputs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Results
from model.contracts import ClipPrediction, ClipTargets, LayerPrediction
from model.losses.kmax import KMaxCriterion, KMaxLossConfig, flat
from model.losses.matching import match_queries
from model.losses.pixels import rarity, sample_pixels
from model.losses.points import uniform
from model.losses.targets import clip_targets

TINY = {"clips": 6, "queries": 16, "tubes": 6, "height": 24, "width": 24, "channels": 64, "layers": 5, "classes": 6}
FULL = {"clips": 1, "queries": 128, "tubes": 20, "height": 193, "width": 337, "channels": 128, "layers": 7,
        "classes": 124}

MEASURES = ("model/losses/kmax.py", "model/losses/matching.py", "model/losses/pixels.py", "model/losses/targets.py")
SIZES = {"toy": {"tiny": (TINY, 256)}, "full": {"tiny": (TINY, 256), "full": (FULL, 4096)}}


def run(size: dict[str, tuple[dict[str, int], int]], results: Results) -> None:
    """Compare the losses once for every world and its number of sampled pixels."""
    for name, (shape, samples) in size.items():
        prediction, targets = world(**shape)
        config = KMaxLossConfig(pixel_samples=samples, semantic_samples=samples)
        one, other = (step(losses, prediction, targets, config) for losses in (ours, plain))
        results.compare(f"kMaX losses, {name} size", ours=one, baseline=other, agree=agree)


def agree(one: float, other: float) -> None:
    """Both sums are the same to 1e-4."""
    gap = abs(one / other - 1)
    assert gap < 1e-4, f"the two losses differ by {gap:.1e}"


def step(losses: Callable, prediction: ClipPrediction, targets: Sequence[ClipTargets], config: KMaxLossConfig
         ) -> Callable[[], float]:
    """Loss and gradients of every output; ours and the baseline draw the same pixels."""
    leaves = [leaf for layer in (prediction, *prediction.auxiliary)
              for leaf in (layer.class_logits, layer.mask_logits, layer.pixel_features)]

    def run() -> float:
        loss = losses(prediction, targets, config, torch.Generator().manual_seed(0))
        torch.autograd.grad(loss, [*leaves, prediction.semantic_logits])
        return loss.item()
    return run


def ours(prediction, targets, config, generator) -> Tensor:
    """The criterion of the project."""
    return sum(KMaxCriterion(config)(prediction, targets, generator=generator).values())


def plain(prediction, targets, config, generator) -> Tensor:
    """The same sum of losses, formula by formula."""
    truth = clip_targets(targets)
    total = 0.0
    matches = match_queries(prediction.class_logits, flat(prediction.mask_logits), truth)
    batch, queries, _ = prediction.class_logits.shape
    tube = matches.tube_of_query
    void = truth.void.bool()
    target_masks = torch.zeros(flat(prediction.mask_logits).shape)                             # b n p
    labels = torch.full((batch, queries), prediction.class_logits.shape[-1] - 1)
    class_weights = 0.25 * matches.void_share.clamp(min=1e-5)
    mask_weights = torch.zeros(batch, queries)
    for item, query in (tube >= 0).nonzero().tolist():
        row = tube[item, query]
        target_masks[item, query] = truth.masks[item, row]
        labels[item, query] = truth.classes[item, row]
        class_weights[item, query] = 0.75 * matches.mask_similarity[item, query, row].clamp(min=1e-5)
        mask_weights[item, query] = matches.class_similarity[item, query, row].clamp(min=1e-5)
    draw = uniform(prediction.mask_logits.device, generator=generator)
    rare = rarity(truth)

    def sample(count: int, temperature: float) -> Tensor:
        return sample_pixels(rare, truth, count=count, temperature=temperature, uniform=draw(*rare.shape))

    for index, layer in enumerate((prediction, *prediction.auxiliary)):
        logits = flat(layer.mask_logits)
        entropy = F.cross_entropy(logits, target_masks, reduction="none").masked_fill(void, 0)
        masks = logits.softmax(1).masked_fill(void[:, None], 0)
        dice = 1 - (2 * (masks * target_masks).sum(-1) + 1) / (masks.sum(-1) + target_masks.sum(-1) + 1)
        classes = F.cross_entropy(layer.class_logits.mT, labels, reduction="none") * class_weights
        positions = sample(config.pixel_samples, config.pixel_temperature)[:, None]
        features = flat(layer.pixel_features).gather(2, positions.expand(-1, layer.pixel_features.shape[1], -1))
        share = target_masks.gather(2, positions.expand(-1, queries, -1))
        same = share.mT @ share
        alike = F.cross_entropy(features.mT @ features / config.similarity_temperature,
                                same / same.sum(1, keepdim=True).clamp(min=1), reduction="none")
        total = total + (config.class_weight * mean(classes) + config.mask_weight * mean(entropy)
                         + config.dice_weight * (dice * mask_weights).sum(1).mean() * 0.75 / queries
                         + config.pixel_weight * mean(alike))
        if index == 0:
            positions = sample(config.semantic_samples, config.semantic_temperature)
            semantic = torch.where(void, -1, truth.classes.gather(1, truth.masks.argmax(1))).gather(1, positions)
            logits = flat(prediction.semantic_logits)
            logits = logits.gather(2, positions[:, None].expand(-1, logits.shape[1], -1))
            total = total + config.semantic_weight * mean(F.cross_entropy(logits, semantic, ignore_index=-1,
                                                                          reduction="none"))
    return total


def mean(loss: Tensor) -> Tensor:
    """Mean over non-zero entries, then over the batch."""
    return (loss.sum(-1) / (loss != 0).sum(-1).clamp(min=1)).mean()


def world(*, clips: int, queries: int, tubes: int, height: int, width: int, channels: int, layers: int, classes: int
          ) -> tuple[ClipPrediction, tuple[ClipTargets, ...]]:
    """Clips of two frames cut into the cells of random points, void on top, and random predictions."""
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    def target() -> ClipTargets:
        points = torch.rand(tubes, 2, generator=generator) * torch.tensor([height, width])
        grid = torch.cartesian_prod(torch.arange(height), torch.arange(width)).float()
        nearest = torch.cdist(grid, points).argmin(1).view(1, height, width).repeat(2, 1, 1)
        nearest[:, :height // 12] = -1
        return ClipTargets(masks=torch.stack([nearest == tube for tube in range(tubes)]), void=nearest < 0,
                           classes=torch.randint(classes, (tubes,), generator=generator), track_ids=torch.arange(tubes))

    outputs = [{"class_logits": leaf(clips, queries, classes + 1),
                "mask_logits": leaf(clips, queries, 2, height, width),
                "pixel_features": F.normalize(leaf(clips, channels, 2, height, width), dim=1).detach().requires_grad_()}
               for _ in range(layers)]
    final, *auxiliary = outputs
    return ClipPrediction(
        **final, queries=torch.empty(0), mask_embeddings=torch.empty(0),
        auxiliary=tuple(LayerPrediction(**layer) for layer in auxiliary),
        semantic_logits=leaf(clips, classes + 1, 2, height, width)), tuple(target() for _ in range(clips))
