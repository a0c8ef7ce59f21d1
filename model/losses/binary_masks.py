"""Masks as Mask2Former compares them: every query decides about every pixel by itself (arXiv 2112.01527, section 3.3).

The costs of matching and the losses are the same sums over a pixel axis. The entries of that axis may be points drawn
from a clip, or weighted pixels that stand for a whole video; see `PixelTargets`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from model.losses.matching import assign
from model.losses.targets import NO_TUBE, PixelTargets

_NO_LABEL = -100        # of a query in an item that nobody labelled


@dataclass(frozen=True, kw_only=True)
class MatchingCosts:
    """Weights of the costs by which queries are assigned to tubes. Defaults: Mask2Former and all that follow it."""

    class_weight: float = 2.0       # minus the probability of the tube's class
    mask_weight: float = 5.0        # mean binary cross-entropy
    dice_weight: float = 5.0
    smoothing: float = 1.0          # added to both parts of the dice fraction


@dataclass(frozen=True, kw_only=True)
class MaskLossConfig:
    """Weights of the terms. Defaults: Tube-Link in every task, and MaXTron's cross-clip head on it."""

    class_weight: float = 2.0
    mask_weight: float = 5.0            # binary cross-entropy
    dice_weight: float = 5.0
    no_object_weight: float = 0.1       # of the class "no object" in the class loss
    costs: MatchingCosts = field(default_factory=MatchingCosts)
    # With more tubes than queries, Mask2Former and VITA divide the mask losses by the number of all tubes, although
    # only the matched ones have a loss. Tube-Link's released code divides by the matched ones, as is done here.
    official_compat: bool = False

    def __post_init__(self) -> None:
        for name in ("class_weight", "mask_weight", "dice_weight", "no_object_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{type(self).__name__}.{name} is {getattr(self, name)}; it must not be negative")

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight."""
        return {"class": self.class_weight, "mask": self.mask_weight, "dice": self.dice_weight}

    def count_masks(self, classes: Tensor, *, queries: int) -> Tensor:
        """classes b m of the tubes -> the number that the mask losses of the batch are divided by, before workers meet.
        """
        tubes = (classes != NO_TUBE).sum(-1)
        return (tubes if self.official_compat else tubes.clamp(max=queries)).sum().float()


@torch.no_grad()
def match_masks(class_logits: Tensor, mask_logits: Tensor, targets: PixelTargets, *, costs: MatchingCosts) -> Tensor:
    """class_logits b n classes+1, mask_logits b n p -> the tube of each query b n, NO_TUBE where it has none.

    Without a class_weight the logits may be of other classes than the targets.
    """
    entropy, dice = mask_costs(mask_logits.float(), targets, smoothing=costs.smoothing)
    cost = costs.mask_weight * entropy + costs.dice_weight * dice
    if costs.class_weight:
        probability = class_logits.softmax(-1, dtype=torch.float32)
        classes = targets.classes.clamp(min=0)[:, None].expand(-1, probability.shape[1], -1)
        cost = cost - costs.class_weight * probability.gather(2, classes)
    return assign(-cost, targets.classes != NO_TUBE)[1]


def mask_costs(mask_logits: Tensor, targets: PixelTargets, *, smoothing: float = 1.0) -> tuple[Tensor, Tensor]:
    """mask_logits b n p -> mean binary cross-entropy b n m, 1 - dice b n m, of every query with every tube.

    Cross-entropy is softplus(x) - x g; the first part does not depend on the tube, so one product per pair is enough.
    """
    masks = mask_logits.sigmoid()
    weights = targets.weights
    pixels = weights.sum(-1).clamp(min=torch.finfo(weights.dtype).tiny)
    background = einsum(F.softplus(mask_logits), weights, "b n p, b p -> b n")
    covered = einsum(mask_logits, targets.masks, "b n p, b m p -> b n m")
    entropy = (background[..., None] - covered) / pixels[:, None, None]
    overlap = einsum(masks, targets.masks, "b n p, b m p -> b n m")
    mass = einsum(masks, weights, "b n p, b p -> b n")
    dice = (2 * overlap + smoothing) / (mass[..., None] + targets.areas[:, None] + smoothing)
    return entropy, 1 - dice


def mask_terms(mask_logits: Tensor, covered: Tensor, *, weights: Tensor, areas: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy (mean over pixels) and 1 - dice of x matched pairs, x each.

    mask_logits x p; covered x p: weight of the entry where the tube covers it; weights x p or 1 p; areas x.
    """
    pixels = weights.sum(-1).clamp(min=torch.finfo(weights.dtype).tiny)
    entropy = (weights * F.softplus(mask_logits) - mask_logits * covered).sum(-1) / pixels
    masks = mask_logits.sigmoid()
    return entropy, 1 - (2 * (masks * covered).sum(-1) + 1) / ((masks * weights).sum(-1) + areas + 1)


def class_term(class_logits: Tensor, classes: Tensor, tube_of_query: Tensor, *, no_object_weight: float,
               known: Tensor | None = None) -> Tensor:
    """Weighted mean cross-entropy over all queries of the batch; class_logits b n classes+1, classes b m.

    known: b bool, false for items that nobody labelled, whose queries are left out; None: all are known.
    """
    if known is not None and not known.any():
        return class_logits.float().sum() * 0       # keeps every parameter in the graph of every worker
    no_object = class_logits.shape[-1] - 1
    matched_classes = classes.take_along_dim(tube_of_query.clamp(min=0), 1)
    labels = torch.where(tube_of_query != NO_TUBE, matched_classes, no_object)
    if known is not None:
        labels = torch.where(known[:, None], labels, _NO_LABEL)
    weights = class_logits.new_ones(no_object + 1, dtype=torch.float32)
    weights[no_object] = no_object_weight
    return F.cross_entropy(rearrange(class_logits.float(), "b n classes -> b classes n"), labels, weights,
                           ignore_index=_NO_LABEL)


def masks_of_share(count: Tensor, *, items: int) -> Tensor:
    """The number of masks that this training worker would have if all its items had equally many, at least 1.

    count: of the masks of its `items` clips or videos. Without distributed training it is the number itself; workers
    with equally many items divide by the same number, the mean of theirs.
    """
    if dist.is_available() and dist.is_initialized():
        totals = torch.stack([count, count.new_tensor(items)])
        dist.all_reduce(totals)
        count = totals[0] * items / totals[1]
    return count.clamp(min=1)
