"""The two losses of kMaX-DeepLab on sampled pixels: instance discrimination and semantic segmentation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor

from model.losses.targets import PixelTargets, mean_where_not_zero

VOID_PENALTY = 99_999.0     # void is drawn only after every labelled pixel, as in the official code


def rarity(targets: PixelTargets) -> Tensor:
    """b p: log of (pixels of the clip / pixels of the tube at this pixel). For dense clips."""
    area = einsum(targets.masks, targets.areas, "b m p, b m -> b p").clamp(min=1)
    return (area.shape[-1] / area).log()


def sample_pixels(rarity: Tensor, targets: PixelTargets, *, count: int, temperature: float, uniform: Tensor) -> Tensor:
    """rarity b p, uniform b p in 0-1 -> positions b count: without replacement, probability ~ exp(rarity)^temperature.

    Gumbel top-k. With temperature 1 every tube is drawn equally often, above 1 small tubes more often than large ones.
    """
    keys = rarity * temperature - VOID_PENALTY * (targets.labelled == 0) - (-uniform.log()).log()
    return keys.topk(min(count, keys.shape[-1])).indices


def discrimination_loss(pixel_features: Tensor, targets: PixelTargets, positions: Tensor, *,
                        temperature: float = 0.3) -> Tensor:
    """pixel_features b d p (L2-normalised), positions b s -> b: pixels of one tube look alike, others do not.

    For each sampled pixel: cross-entropy between the softmax over all samples of cosine / temperature and the equal
    distribution over the samples of its tube (`pixelwise_insdis_loss` in kmax_deeplab/modeling/criterion.py). The
    cross-entropy is logsumexp - mean similarity to the own tube, so the samples-by-samples target is never formed.
    """
    features = pixel_features.take_along_dim(positions[:, None], 2)                # b d s
    masks = targets.masks.take_along_dim(positions[:, None], 2)                    # b m s
    partners = einsum(masks, masks.sum(-1), "b m s, b m -> b s")                   # samples of the own tube
    share = 1 / partners.clamp(min=1)
    tubes = einsum(masks, features, "b m s, b d s -> b m d")                       # sum of features of each tube
    own = einsum(einsum(masks, tubes, "b m s, b m d -> b d s"), features, "b d s, b d s -> b s") / temperature
    loss = share * (partners * log_partition(features, temperature=temperature) - own)
    return mean_where_not_zero(loss)


def log_partition(features: Tensor, *, temperature: float) -> Tensor:
    """features b d s -> b s: for each column, log of the sum over all columns of exp(dot product / temperature)."""
    return (einsum(features / temperature, features, "b d s, b d r -> b s r")).logsumexp(-1)


def semantic_loss(semantic_logits: Tensor, targets: PixelTargets, positions: Tensor | None = None) -> Tensor:
    """semantic_logits b classes p, positions b s (None: every pixel) -> b: mean cross-entropy over labelled pixels.

    The label of a pixel is the class of its tube, of the first one where tubes overlap.
    """
    masks, labelled = targets.masks, targets.labelled
    if positions is not None:
        semantic_logits = semantic_logits.take_along_dim(positions[:, None], 2)
        masks, labelled = masks.take_along_dim(positions[:, None], 2), labelled.take_along_dim(positions, 1)
    labels = targets.classes.take_along_dim(masks.argmax(1), 1)                    # b s
    loss = F.cross_entropy(semantic_logits, labels.clamp(min=0), reduction="none")
    return mean_where_not_zero(loss * (labelled > 0))
