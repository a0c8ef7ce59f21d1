"""The mask losses of kMaX-DeepLab: queries compete for every pixel, so masks are a softmax over queries.

Both losses need the softmax only at the queries that are matched to a tube. A queries-by-pixels map is therefore
computed once, for the gradient, and never kept.
"""

from __future__ import annotations

import torch
from einops import einsum
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.losses.matching import Matches
from model.losses.targets import PixelTargets, mean_where_not_zero


def mask_losses(mask_logits: Tensor, targets: PixelTargets, matches: Matches, *,
                smallest_weight: float = 1e-5) -> tuple[Tensor, Tensor]:
    """mask_logits b n p -> cross-entropy b (mean over pixels with a loss), dice b.

    Dice of a tube: 1 - (2 sum(p g) + 1) / (sum(p) + sum(g) + 1) over labelled pixels, times the class probability the
    matched query gave (at least `smallest_weight`); summed over tubes, times 0.75 / queries (`dice_loss`,
    `softmax_ce_loss` in kmax_deeplab/modeling/criterion.py). Void pixels have no part in the cross-entropy, and none in
    the dice unless void counts.
    """
    log_masks = _LogSoftmaxAt.apply(mask_logits, matches.query_of_tube.clamp(min=0))         # b m p
    entropy = -einsum(log_masks, targets.masks, "b m p, b m p -> b p")

    masks = log_masks.exp()
    overlap = einsum(masks, targets.masks, "b m p, b m p -> b m")
    mass = einsum(masks, targets.compared, "b m p, b p -> b m")
    dice = 1 - (2 * overlap + 1) / (mass + targets.areas + 1)
    weights = matches.of_tube(matches.class_similarity).clamp(min=smallest_weight) * matches.is_matched
    return mean_where_not_zero(entropy, weights=targets.weights), (dice * weights).sum(-1) * 0.75 / mask_logits.shape[1]


class _LogSoftmaxAt(torch.autograd.Function):
    """logits b n p, rows b m -> b m p: log of the softmax over n, for these rows only. A row may occur twice.

    Half-precision logits are saved as they are and widened where they are read.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, rows: Tensor) -> Tensor:
        rows = rows[..., None].expand(-1, -1, logits.shape[-1])
        partition = widened(logits).logsumexp(1, keepdim=True)              # b 1 p
        ctx.save_for_backward(logits, rows, partition)
        return logits.gather(1, rows) - partition

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        logits, rows, partition = ctx.saved_tensors
        slope = (logits - partition).exp_().mul_(-gradient.sum(1, keepdim=True))
        return slope.scatter_add_(1, rows, gradient).to(logits.dtype), None


def widened(logits: Tensor) -> Tensor:
    """At least float32: sums over pixels need it."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
