"""The classification loss of kMaX-DeepLab, in which the quality of a query's mask is the weight of its class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from model.losses.matching import Matches
from model.losses.targets import NO_TUBE, PixelTargets, mean_where_not_zero


def class_loss(class_logits: Tensor, targets: PixelTargets, matches: Matches, *,
               alpha: tuple[float, float] = (0.75, 0.25), smallest_weight: float = 1e-5) -> Tensor:
    """class_logits b n classes+1 -> b: mean over queries of weight x alpha x cross-entropy.

    The weight of a query with a tube is the dice of their masks. The weight of one without a tube is the share of its
    mass that lies on void, so a query is not punished for an object that nobody labelled. Where no pixel has a weight,
    there is no loss. alpha: (with a tube, without). The focal gamma is 0 in the official code
    (`focal_cross_entropy_loss` in kmax_deeplab/modeling/criterion.py), although the paper calls the loss focal.
    """
    has_tube = matches.tube_of_query != NO_TUBE                                    # b n
    no_object = class_logits.shape[-1] - 1
    matched_classes = targets.classes.take_along_dim(matches.tube_of_query.clamp(min=0), 1)
    labels = torch.where(has_tube, matched_classes, no_object)
    weights = torch.where(has_tube, matches.of_query(matches.mask_similarity), matches.void_share)
    weights = weights.clamp(min=smallest_weight) * torch.where(has_tube, *alpha) * targets.known[:, None]
    loss = F.cross_entropy(rearrange(class_logits.float(), "b n classes -> b classes n"), labels, reduction="none")
    return mean_where_not_zero(loss * weights)
