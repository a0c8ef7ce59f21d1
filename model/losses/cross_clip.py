"""The stage-two criterion: class and mask losses on whole videos, from all pixels or from weighted pixel evidence.

MaXTron, arXiv 2311.18537 v1, section 3.2; the sums of `maxtron_deeplab/modeling/cc_criterion.py` in TACJu/MaXTron over
the volume of a video are estimated from the pixels of `PixelEvidence`; the areas of the tubes stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from model.contracts import PixelEvidence, VideoPrediction
from model.losses.matching import match_queries
from model.losses.queries import QueryLossConfig, query_losses, weighted_sum
from model.losses.targets import video_targets


@dataclass(frozen=True, kw_only=True)
class CrossClipLossConfig(QueryLossConfig):
    """Defaults: every MaXTron offline model on VIPSeg."""

    class_weight: float = 4.0
    dice_weight: float = 4.0
    mask_weight: float = 0.0


class CrossClipCriterion:
    """Weighted losses of a batch of videos by name; their sum is the loss.

    Names: class, mask, dice for the last layer, the same with `_aux` for the sum over the earlier ones. The match of
    the last layer serves all. Each is the mean over the videos of the batch, in float32 whatever autocast says.
    """

    def __init__(self, config: CrossClipLossConfig) -> None:
        self.config = config
        self.weights = {"class": config.class_weight, "mask": config.mask_weight, "dice": config.dice_weight}

    def __call__(self, predictions: Sequence[VideoPrediction], mask_logits: Sequence[Tensor],
                 evidence: PixelEvidence) -> dict[str, Tensor]:
        """predictions: one per layer of the head, the last one counts; mask_logits: b k n p of each on the evidence."""
        return weighted_sum(self.layer_losses(predictions, mask_logits, evidence), self.weights)

    def layer_losses(self, predictions: Sequence[VideoPrediction], mask_logits: Sequence[Tensor],
                     evidence: PixelEvidence) -> list[dict[str, Tensor]]:
        """Unweighted losses (each b) by name: of the last layer, then of the earlier ones in order."""
        with torch.autocast(evidence.weights.device.type, enabled=False):
            logits = [rearrange(masks, "b k n p -> b n (k p)") for masks in mask_logits]
            targets = video_targets(evidence)
            matches = match_queries(predictions[-1].class_logits, logits[-1], targets)
            if targets.masks.shape[1] > logits[-1].shape[1]:
                targets = targets.keeping(matches.is_matched)
            losses = [query_losses(layer.class_logits, masks, targets, matches, config=self.config)
                      for layer, masks in zip(predictions, logits, strict=True)]
        return [losses[-1], *losses[:-1]]
