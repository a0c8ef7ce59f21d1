"""The two losses of kMaX-DeepLab on sampled pixels: instance discrimination and semantic segmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.losses.targets import PixelTargets, mean_where_not_zero

VOID_PENALTY = 99_999.0     # void is drawn only after every labelled pixel, as in the official code


def rarity(targets: PixelTargets) -> Tensor:
    """b p: log of (pixels of the clip / pixels of the tube that covers this pixel). For dense clips."""
    area = einsum(targets.masks, targets.areas, "b m p, b m -> b p").clamp(min=1)
    return (area.shape[-1] / area).log()


def sample_pixels(rarity: Tensor, targets: PixelTargets, *, count: int, temperature: float, uniform: Tensor) -> Tensor:
    """rarity b p, uniform b p in 0-1 -> positions b s without replacement, probability ~ exp(rarity x temperature).

    Gumbel top-k. With temperature 1 every tube is drawn about equally often; above 1, small tubes are drawn more often.
    A clip with fewer than `count` pixels gives all of them. Pixels of weight 0 are drawn after all others.
    """
    keys = rarity * temperature - VOID_PENALTY * (targets.labelled == 0) - (-uniform.log()).log()
    keys = keys - VOID_PENALTY * (targets.weights == 0)
    return keys.topk(min(count, keys.shape[-1])).indices


def pick(maps: Tensor, positions: Tensor) -> Tensor:
    """maps b x p at positions b s -> b x s in float32."""
    return maps.gather(2, positions[:, None].expand(-1, maps.shape[1], -1)).float()


def discrimination_loss(pixel_features: Tensor, targets: PixelTargets, positions: Tensor, *,
                        temperature: float = 0.3) -> Tensor:
    """pixel_features b d p (L2-normalised), positions b s -> b: low where pixels of one tube, and only they, are alike.

    Mean over the labelled samples of the cross-entropy between the softmax over all samples of cosine / temperature and
    the equal distribution over the samples of the same tube (`pixelwise_insdis_loss` in
    kmax_deeplab/modeling/criterion.py). It is computed as log partition - mean similarity to the own tube, which needs
    neither the samples-by-samples target nor a second pass over the samples-by-samples similarities. Samples of weight
    0 are not compared with anything.
    """
    # b d s, b m s
    features = pick(pixel_features, positions)
    masks = pick(targets.masks, positions)
    partners = einsum(masks, masks.sum(-1), "b m s, b m -> b s")                            # samples of the own tube
    share = 1 / partners.clamp(min=1)
    tubes = einsum(features, masks, "b d s, b m s -> b d m")
    similarity = einsum(features, tubes, masks * share[:, None], "b d s, b d m, b m s -> b") / temperature
    compared = (targets.weights.gather(1, positions) > 0).float()                           # b s
    loss = _LogPartition.apply(features, partners * share, compared, temperature) - similarity
    return loss / (partners > 0).sum(-1).clamp(min=1)


class _LogPartition(torch.autograd.Function):
    """features b d s of at most unit length, weights b s, compared b s (0 or 1) -> b: sum over columns of weight x log
    of the column's sum of compared x exp(dot product / temperature). A column with a weight must be compared.

    The gradient is computed in the forward pass, while the b s s matrix exists, so that no layer keeps one.
    """

    @staticmethod
    def forward(ctx, features: Tensor, weights: Tensor, compared: Tensor, temperature: float) -> Tensor:
        matrix = torch.bmm(features.mT / temperature, features).exp_()      # symmetric; bounded by exp(1 / temperature)
        matrix.mul_(compared[..., None])
        partition = matrix.sum(1).clamp(min=torch.finfo(matrix.dtype).tiny)     # b s
        if ctx.needs_input_grad[0]:
            slope = weights / (partition * temperature)
            matrix.mul_(slope[:, None] + slope[..., None])                  # both factors of the product change
            ctx.save_for_backward(torch.bmm(features, matrix) * compared[:, None])      # b d s
        return (weights * partition.log()).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.saved_tensors[0] * gradient[:, None, None], None, None, None


def semantic_loss(semantic_logits: Tensor, targets: PixelTargets, positions: Tensor | None = None) -> Tensor:
    """semantic_logits b classes p, positions b s (None: every pixel) -> b: mean cross-entropy over labelled pixels.

    The label of a pixel is the class of its tube, of the first one where tubes overlap.
    """
    masks = targets.masks
    labelled = targets.labelled
    if positions is not None:
        semantic_logits = pick(semantic_logits, positions)
        masks = pick(masks, positions)
        labelled = labelled.gather(1, positions)
    labels = targets.classes.gather(1, masks.argmax(1)).clamp(min=0)               # b s
    return mean_where_not_zero(F.cross_entropy(semantic_logits.float(), labels, reduction="none") * (labelled > 0))


def strided_positions(fine: Sequence[int], coarse: Sequence[int]) -> Tensor:
    """fine (t, H, W), coarse (t, h, w) -> t*h*w positions in the fine volume that the pixels of a coarse map stand for.

    These are every s-th row and column from the first one, with one stride s = (W-1) // (w-1) = (H-1) // (h-1):
    `aux_semantic_loss` in kmax_deeplab/modeling/criterion.py. Raises ValueError where there is no such stride.
    """
    strides = {(long - 1) // max(short - 1, 1) for long, short in zip(fine[1:], coarse[1:])}
    stride = max(strides)
    rows = torch.arange(math.prod(fine)).view(*fine)[:, ::max(stride, 1), ::max(stride, 1)]
    if len(strides) != 1 or rows.shape != torch.Size(coarse):
        raise ValueError(f"semantic logits of t h w = {tuple(coarse)} do not fit targets of {tuple(fine)}: they must "
                         "have the targets' size, or show every s-th row and column. Set losses.semantic_weight=0 to "
                         "train without the semantic loss")
    return rows.flatten()
