"""The stage-two criterion: class and mask losses on whole videos, from all pixels or from weighted pixel evidence.

MaXTron, arXiv 2311.18537 v1, section 3.2, on Video-kMaX and on Tube-Link, and VITA, arXiv 2206.04403, section 3.3; the
type of the config says which. The sums over the volume of a video are estimated from the pixels of `PixelEvidence`; the
areas of the tubes stay exact. Facts follow `maxtron_deeplab/modeling/cc_criterion.py` and the Tube-Link half of
TACJu/MaXTron, and sukjunhwang/VITA, `vita/modeling/vita_criterion.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from model.contracts import PixelEvidence, VideoPrediction, VideoQueries
from model.losses.binary_masks import MaskLossConfig, class_term, mask_terms, match_masks, mean_over_ranks
from model.losses.matching import Matches, match_queries
from model.losses.queries import QueryLossConfig, query_losses, weighted_sum
from model.losses.targets import NO_TUBE, PixelTargets, video_targets
from model.losses.vita import VitaLossConfig, video_similarity_loss


@dataclass(frozen=True, kw_only=True)
class CrossClipLossConfig(QueryLossConfig):
    """MaXTron on Video-kMaX. Defaults: every offline model on VIPSeg."""

    class_weight: float = 4.0
    dice_weight: float = 4.0
    mask_weight: float = 0.0
    share_matching: bool = True     # every layer uses the match of the last one
    void_counts: bool = False       # the dice loss counts what lies on void; matching never does

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight."""
        return {"class": self.class_weight, "mask": self.mask_weight, "dice": self.dice_weight}


@dataclass(frozen=True, kw_only=True)
class MaskCrossClipLossConfig(MaskLossConfig):
    """MaXTron on Tube-Link. Defaults: every offline model on YouTube-VIS and OVIS."""


class CrossClipCriterion:
    """Weighted losses of a batch of videos by name; their sum is the loss.

    Names: class, mask, dice for the last layer, the same with `_aux` for the sum over the earlier ones; in float32
    whatever autocast says. On Video-kMaX the match of the last layer serves all and each loss is the mean over the
    videos. On Tube-Link and in VITA every layer is matched by itself, void counts as background, the class loss is a
    mean over queries, and the mask losses are divided by the number of masks, averaged over the training workers.
    VITA's last layer also has `similarity`, a mean over pairs of queries.
    """

    def __init__(self, config: CrossClipLossConfig | MaskLossConfig) -> None:
        self.config = config

    def __call__(self, predictions: Sequence[VideoPrediction], mask_logits: Sequence[Tensor], evidence: PixelEvidence,
                 *, queries: VideoQueries | None = None) -> dict[str, Tensor]:
        """predictions: one per layer of the head, the last one counts; mask_logits: b k n p of each on the evidence.

        queries: what the head read; VITA's similarity loss compares them.
        """
        return weighted_sum(self.layer_losses(predictions, mask_logits, evidence, queries=queries),
                            self.config.weights)

    def layer_losses(self, predictions: Sequence[VideoPrediction], mask_logits: Sequence[Tensor],
                     evidence: PixelEvidence, *, queries: VideoQueries | None = None) -> list[dict[str, Tensor]]:
        """Unweighted losses by name, each b or a scalar: of the last layer, then of the earlier ones in order."""
        with torch.autocast(evidence.weights.device.type, enabled=False):
            logits = [rearrange(masks, "b k n p -> b n (k p)") for masks in mask_logits]
            targets = video_targets(evidence)
            match self.config:
                case CrossClipLossConfig():
                    losses = kmax_losses(predictions, logits, targets, config=self.config)
                case MaskLossConfig():
                    matches = [match_masks(layer.class_logits, masks, targets, costs=self.config.costs)
                               for layer, masks in zip(predictions, logits, strict=True)]
                    losses = own_match_losses(predictions, logits, targets, matches, config=self.config)
            if isinstance(self.config, VitaLossConfig) and self.config.similarity_weight:
                losses[-1]["similarity"] = video_similarity_loss(
                    predictions[-1], matches[-1], queries=queries, evidence=evidence, targets=targets,
                    costs=self.config.frame_costs)
        return [losses[-1], *losses[:-1]]


def kmax_losses(predictions: Sequence[VideoPrediction], mask_logits: Sequence[Tensor], targets: PixelTargets, *,
                config: CrossClipLossConfig) -> list[dict[str, Tensor]]:
    """mask_logits: b n p of each layer -> the losses of each layer (each b)."""
    targets = targets.counting_void() if config.void_counts else targets

    def match(layer: VideoPrediction, masks: Tensor) -> tuple[PixelTargets, Matches]:
        matches = match_queries(layer.class_logits, masks, targets)
        fits = targets.masks.shape[1] <= masks.shape[1]
        return (targets if fits else targets.keeping(matches.is_matched)), matches

    layers = list(zip(predictions, mask_logits, strict=True))
    last = match(*layers[-1])
    return [query_losses(layer.class_logits, masks, *(last if config.share_matching else match(layer, masks)),
                         config=config) for layer, masks in layers]


def own_match_losses(predictions: Sequence[VideoPrediction], mask_logits: Sequence[Tensor], targets: PixelTargets,
                     matches: Sequence[Tensor], *, config: MaskLossConfig) -> list[dict[str, Tensor]]:
    """mask_logits: b n p, matches: b n of each layer -> the losses of each layer (scalars), each by its own match."""
    tubes = (targets.classes != NO_TUBE).sum(-1).clamp(max=mask_logits[-1].shape[1])
    count = mean_over_ranks(tubes.sum().float())
    losses = []
    for layer, masks, matched in zip(predictions, mask_logits, matches, strict=True):
        items, queries = (matched != NO_TUBE).nonzero(as_tuple=True)
        rows = matched[items, queries]
        mask, dice = mask_terms(masks[items, queries].float(), targets.masks[items, rows],
                                weights=targets.weights[items], areas=targets.areas[items, rows])
        losses.append({"class": class_term(layer.class_logits, targets.classes, matched,
                                           no_object_weight=config.no_object_weight),
                       "mask": mask.sum() / count, "dice": dice.sum() / count})
    return losses
