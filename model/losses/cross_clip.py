"""The stage-two criterion: class and mask losses on whole videos, from all pixels or from weighted pixel evidence.

MaXTron, arXiv 2311.18537 v1, section 3.2, on Video-kMaX and on Tube-Link; VITA's losses (`model.losses.vita`) build on
those of Tube-Link. Each config computes its own losses. The sums over the volume of a video are estimated from the
pixels of `PixelEvidence`; the areas of the tubes stay exact. Facts follow `maxtron_deeplab/modeling/cc_criterion.py`
and the Tube-Link half of TACJu/MaXTron.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from einops import rearrange
from torch import Tensor

from model.contracts import PixelEvidence, VideoPrediction, VideoQueries
from model.losses.binary_masks import MaskLossConfig, class_term, mask_terms, masks_of_share, match_masks
from model.losses.matching import Matches, match_queries
from model.losses.points import PointConfig, expected_points
from model.losses.queries import QueryLossConfig, query_losses, weighted_sum
from model.losses.targets import NO_TUBE, PixelTargets, video_targets


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLayers:
    """The predictions of all layers of a head about b videos, and the ground truth; the last layer counts."""

    predictions: Sequence[VideoPrediction]
    mask_logits: Sequence[Tensor]       # b n p of each layer, on the pixels of the targets
    targets: PixelTargets
    evidence: PixelEvidence             # the targets come from it
    queries: VideoQueries | None        # the head's input

    def each(self) -> list[tuple[Tensor, Tensor]]:
        """Class logits and mask logits of each layer."""
        classes = [prediction.class_logits for prediction in self.predictions]
        return list(zip(classes, self.mask_logits, strict=True))


class VideoLosses(Protocol):
    """The settings of `CrossClipCriterion`, which also compute its losses."""

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight."""

    def layer_losses(self, layers: VideoLayers) -> list[dict[str, Tensor]]:
        """Unweighted losses by name, each b or a scalar, of each layer in order."""


@dataclass(frozen=True, kw_only=True)
class CrossClipLossConfig(QueryLossConfig):
    """MaXTron on Video-kMaX. Defaults: every offline model on VIPSeg.

    Each loss is the mean over the videos.
    """

    kind: Literal["maxtron"] = "maxtron"
    class_weight: float = 4.0
    dice_weight: float = 4.0
    mask_weight: float = 0.0
    share_matching: bool = True     # every layer uses the match of the last one
    void_counts: bool = False       # the dice of the loss and of the matching counts void

    def build(self) -> CrossClipCriterion:
        """The criterion with these settings."""
        return CrossClipCriterion(self)

    def layer_losses(self, layers: VideoLayers) -> list[dict[str, Tensor]]:
        """See `VideoLosses`."""
        targets = layers.targets.counting_void() if self.void_counts else layers.targets
        last = self._match(*layers.each()[-1], targets)
        return [query_losses(class_logits, mask_logits, *(
            last if self.share_matching else self._match(class_logits, mask_logits, targets)), config=self)
            for class_logits, mask_logits in layers.each()]

    def _match(self, class_logits: Tensor, mask_logits: Tensor, targets: PixelTargets) -> tuple[PixelTargets, Matches]:
        """With more tubes than queries, the pixels of the tubes without a query become void."""
        matches = match_queries(class_logits, mask_logits, targets)
        fits = targets.masks.shape[1] <= mask_logits.shape[1]
        return targets if fits else targets.keeping(matches.is_matched), matches


@dataclass(frozen=True, kw_only=True)
class EvidenceLossConfig(MaskLossConfig):
    """Losses by binary masks on stored pixels, see `own_match_losses`."""

    # As many points as the released code draws for each mask, mostly where it is uncertain, spread over the stored
    # pixels as they would fall on average (`expected_points`); the drawing of points is not undone by weights, there as
    # here. None: every stored pixel counts by its weight alone.
    points: PointConfig | None = None
    points_in_each_clip: ClassVar[bool] = False     # so many points in each clip, not in all clips together


@dataclass(frozen=True, kw_only=True)
class MaskCrossClipLossConfig(EvidenceLossConfig):
    """MaXTron on Tube-Link. Defaults: every offline model on YouTube-VIS and OVIS, except for `points`."""

    kind: Literal["tube_link"] = "tube_link"

    def build(self) -> CrossClipCriterion:
        """The criterion with these settings."""
        return CrossClipCriterion(self)

    def layer_losses(self, layers: VideoLayers) -> list[dict[str, Tensor]]:
        """See `VideoLosses`."""
        return own_match_losses(layers, match_layers(layers, config=self), config=self)


class CrossClipCriterion:
    """Weighted losses of a batch of videos by name; their sum is the loss.

    Names: class, mask, dice for the last layer, the same with `_aux` for the sum over the earlier ones, and any further
    terms that the config adds to the last layer. They are computed in float32 even under autocast.
    """

    def __init__(self, config: VideoLosses) -> None:
        self.config = config

    def __call__(self, predictions: Sequence[VideoPrediction], mask_logits: Sequence[Tensor], evidence: PixelEvidence,
                 *, queries: VideoQueries | None = None) -> dict[str, Tensor]:
        """predictions: one per layer of the head, the last one counts; mask_logits: b k n p of each on the evidence.

        queries: the head's input; VITA's similarity loss compares them.
        """
        return weighted_sum(self.layer_losses(predictions, mask_logits, evidence, queries=queries),
                            self.config.weights)

    def layer_losses(self, predictions: Sequence[VideoPrediction], mask_logits: Sequence[Tensor],
                     evidence: PixelEvidence, *, queries: VideoQueries | None = None) -> list[dict[str, Tensor]]:
        """Unweighted losses by name, each b or a scalar: of the last layer, then of the earlier ones in order."""
        with torch.autocast(evidence.weights.device.type, enabled=False):
            layers = VideoLayers(predictions=predictions, targets=video_targets(evidence), evidence=evidence,
                                 mask_logits=[rearrange(masks, "b k n p -> b n (k p)") for masks in mask_logits],
                                 queries=queries)
            *earlier, last = self.config.layer_losses(layers)
        return [last, *earlier]


def match_layers(layers: VideoLayers, *, config: MaskLossConfig) -> list[Tensor]:
    """The tube of each query b n, NO_TUBE where it has none, for each layer by itself."""
    return [match_masks(class_logits, mask_logits, layers.targets, costs=config.costs)
            for class_logits, mask_logits in layers.each()]


def own_match_losses(layers: VideoLayers, tubes: Sequence[Tensor], *, config: EvidenceLossConfig
                     ) -> list[dict[str, Tensor]]:
    """Losses (scalars) of each layer, each by its own match. tubes: b n of each layer, from `match_layers`.

    Void counts as background, but pixels of weight 0 do not count, and videos that have no others have no loss. The
    class loss is a mean over queries, and the mask losses are divided by the number of masks, counted over all
    training workers.
    """
    targets = layers.targets
    count = masks_of_share(config.count_masks(targets.classes, queries=tubes[-1].shape[1]),
                           items=len(targets.classes))
    losses = []
    for (class_logits, mask_logits), tube_of_query in zip(layers.each(), tubes, strict=True):
        items, queries = (tube_of_query != NO_TUBE).nonzero(as_tuple=True)
        rows = tube_of_query[items, queries]
        logits = mask_logits[items, queries].float()
        covered = targets.masks[items, rows]
        weights = targets.weights[items]
        areas = targets.areas[items, rows]
        if config.points is not None:
            points = _points(logits, weights, clips=layers.evidence.weights.shape[1], config=config)
            covered = covered * points / weights.clamp(min=torch.finfo(weights.dtype).tiny)
            weights = points
            areas = covered.sum(-1)
        mask, dice = mask_terms(logits, covered, weights=weights, areas=areas)
        losses.append({"class": class_term(class_logits, targets.classes, tube_of_query,
                                           no_object_weight=config.no_object_weight, known=targets.known),
                       "mask": mask.sum() / count, "dice": dice.sum() / count})
    return losses


def _points(logits: Tensor, weights: Tensor, *, clips: int, config: EvidenceLossConfig) -> Tensor:
    """logits and weights x (k p) of matched masks, k clips -> the points on each entry x (k p)."""
    if not config.points_in_each_clip:
        return expected_points(logits, weights, config=config.points)
    apart = (rearrange(part, "x (k p) -> (x k) p", k=clips) for part in (logits, weights))
    return rearrange(expected_points(*apart, config=config.points), "(x k) p -> x (k p)", k=clips)
