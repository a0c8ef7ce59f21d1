"""The stage-one criterion of Mask2Former (arXiv 2112.01527) on clips, as Tube-Link and VITA train it.

Every prediction layer is matched and supervised by itself, at sampled points. Tube-Link (arXiv 2303.12782) stacks the
frames of a clip along height, so a tube is one mask on one long image; VITA (arXiv 2206.04403) draws points in each
frame. Facts follow lxtGH/Tube-Link, `models/video/tube_link_vis/mask2former_video_head.py` and, for reserved queries,
`models/video/tube_link_vps/mask2former_video_head_custom_no_stuff_match.py`; and sukjunhwang/VITA,
`vita/modeling/vita_criterion.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from model.contracts import ClipPrediction, ClipTargets, LayerPrediction
from model.losses.binary_masks import MaskLossConfig, class_term, mask_terms, masks_of_share, match_masks
from model.losses.points import Draw, PointConfig, sample_points, uncertain_points, uniform
from model.losses.queries import weighted_sum
from model.losses.targets import NO_TUBE, PixelTargets, clip_targets


@dataclass(frozen=True, kw_only=True)
class Mask2FormerLossConfig(MaskLossConfig):
    """Defaults: Tube-Link on every data set. Queries are reserved only for panoptic data."""

    kind: Literal["mask2former"] = "mask2former"
    points: PointConfig = field(default_factory=PointConfig)
    frames: Literal["stacked", "apart"] = "stacked"     # one set of points for a clip, or one in each frame (VITA)
    stuff_classes: tuple[int, ...] = ()     # class of each reserved query; the last queries are reserved, in this order

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.stuff_classes)) != len(self.stuff_classes):
            raise ValueError(f"losses.stuff_classes={self.stuff_classes} names a class twice; one query is reserved "
                             "for each class, so name each class once")
        if self.frames not in ("stacked", "apart"):
            raise ValueError(f"losses.frames={self.frames!r} does not exist; choose 'stacked' or 'apart'")

    def build(self) -> Mask2FormerCriterion:
        """The criterion with these settings."""
        return Mask2FormerCriterion(self)


class Mask2FormerCriterion:
    """Weighted losses of a batch of clips by name; their sum is the loss.

    Names: class, mask, dice for the final prediction, the same with `_aux` for the sum over the decoder layers. The
    class loss is a mean over queries, and the mask losses are divided by the number of masks, averaged over the
    training workers. Void and padding count as background, but frames without a label do not count. With reserved
    queries, things and stuff are matched and averaged separately and then added: a reserved query is matched to the
    tube of its class or to none.
    """

    def __init__(self, config: Mask2FormerLossConfig) -> None:
        self.config = config

    def __call__(self, prediction: ClipPrediction, targets: Sequence[ClipTargets], *,
                 generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """prediction with its auxiliary layers, b targets -> weighted scalars.

        `generator` draws the points; it may live on the CPU. A clip may have no tubes, and it may have more tubes than
        there are queries: the tubes that match worst are then left out.
        """
        draw = uniform(prediction.mask_logits.device, generator=generator)
        return weighted_sum(self.layer_losses(prediction, targets, draw=draw), self.config.weights)

    def layer_losses(self, prediction: ClipPrediction, targets: Sequence[ClipTargets], *,
                     draw: Draw) -> list[dict[str, Tensor]]:
        """Unweighted losses (scalars) by name: of the final prediction, then of each auxiliary layer.

        Layers draw in the order of the decoder, the final one last; each draws one set of points per clip for the
        matching and then those of `uncertain_points`.
        """
        layers = (*prediction.auxiliary, prediction)
        with torch.autocast(prediction.mask_logits.device.type, enabled=False):
            groups = [group.counted(self.config) for group in self._groups(self.truth(targets), prediction)]
            losses = [self._layer(layer, groups, draw) for layer in layers]
        return [losses[-1], *losses[:-1]]

    def truth(self, targets: Sequence[ClipTargets]) -> ImageTargets:
        """The targets of a batch as this criterion reads them."""
        return ImageTargets.from_clips(targets, stacked=self._stacked)

    @property
    def _stacked(self) -> bool:
        return self.config.frames == "stacked"

    def match(self, layer: ClipPrediction | LayerPrediction, truth: ImageTargets, draw: Draw) -> Tensor:
        """The tube of each query b n, by the costs at random points, which all queries and images of a clip share."""
        points = torch.cat([draw(1, self.config.points.count, 2) for _ in truth.classes])      # b p 2
        return match_masks(layer.class_logits, at_points(as_images(layer.mask_logits, stacked=self._stacked), points),
                           truth.at(points), costs=self.config.costs)

    def _groups(self, truth: ImageTargets, prediction: ClipPrediction) -> list[_Group]:
        """Which queries can be matched to which tubes: all to all, or those of things and stuff apart."""
        queries = prediction.class_logits.shape[1]
        stuff = self.config.stuff_classes
        if not stuff:
            return [_Group(queries=slice(0, queries), truth=truth)]
        if len(stuff) >= queries:
            raise ValueError(f"{len(stuff)} of {queries} queries are reserved for stuff, so none is left for things; "
                             f"give the segmenter at least {len(stuff) + 1} queries")
        classes = torch.tensor(stuff, device=truth.classes.device)
        is_stuff = torch.isin(truth.classes, classes)
        return [_Group(queries=slice(0, queries - len(stuff)), truth=truth.keeping(~is_stuff)),
                _Group(queries=slice(queries - len(stuff), queries), truth=truth.keeping(is_stuff), reserved=classes)]

    def _layer(self, layer: ClipPrediction | LayerPrediction, groups: Sequence[_Group], draw: Draw
               ) -> dict[str, Tensor]:
        terms = [self._terms(LayerPrediction(class_logits=layer.class_logits[:, group.queries],
                                             mask_logits=layer.mask_logits[:, group.queries]), group, draw)
                 for group in groups]
        return {name: sum(term[name] for term in terms) for name in terms[0]}

    def _terms(self, layer: LayerPrediction, group: _Group, draw: Draw) -> dict[str, Tensor]:
        truth = group.truth
        tubes = self.match(layer, truth, draw) if group.reserved is None else reserved_tubes(truth, group.reserved)
        losses = {"class": class_term(layer.class_logits, truth.classes, tubes, known=truth.known,
                                      no_object_weight=self.config.no_object_weight)}
        items, queries = (tubes != NO_TUBE).nonzero(as_tuple=True)
        if not len(items):
            nothing = layer.mask_logits.float().sum() * 0    # keeps every parameter in the graph of every worker
            return {**losses, "mask": nothing, "dice": nothing}
        logits = as_images(layer.mask_logits[items, queries][None], stacked=self._stacked)[0]       # x i h w
        unlabelled = None if truth.unlabelled is None else truth.unlabelled[items, 0]
        points = uncertain_points(rearrange(logits, "x i h w -> (x i) h w"), config=self.config.points, draw=draw,
                                  avoided=None if unlabelled is None else unlabelled.flatten(0, 1))
        values, covered = (at_own_points(images, points)
                           for images in (logits, truth.masks[items, tubes[items, queries]]))
        weights = torch.ones_like(covered[:1])
        if unlabelled is not None:
            weights = (at_own_points(unlabelled, points) == 0).float()
            covered = covered * weights
        mask, dice = mask_terms(values, covered, weights=weights, areas=covered.sum(-1))
        return {**losses, "mask": mask.sum() / group.masks, "dice": dice.sum() / group.masks}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTargets:
    """Ground truth of b clips as i images each, see `as_images`; the maps may be finer than the predictions."""

    masks: Tensor       # b m i h w     float
    classes: Tensor     # b m           int64; NO_TUBE in padding rows
    unlabelled: Tensor | None = None    # b 1 i h w    float; 1 in frames that nobody labelled, else 0; None: none

    @classmethod
    def from_clips(cls, targets: Sequence[ClipTargets], *, stacked: bool = True) -> ImageTargets:
        """The targets of a batch."""
        clips = clip_targets(targets)
        (_, height, width) = targets[0].void.shape
        masks = rearrange(clips.masks, "b m (t h w) -> b m t h w", h=height, w=width)
        unlabelled = None
        if any(clip.unlabelled is not None for clip in targets):
            unlabelled = as_images(rearrange(1 - clips.weights, "b (t h w) -> b 1 t h w", h=height, w=width),
                                   stacked=stacked)
        return cls(masks=as_images(masks, stacked=stacked), classes=clips.classes, unlabelled=unlabelled)

    @property
    def known(self) -> Tensor | None:
        """b bool: false for clips without any label; None: all have one."""
        return None if self.unlabelled is None else (self.unlabelled == 0).flatten(1).any(1)

    def keeping(self, rows: Tensor) -> ImageTargets:
        """Only the tubes of `rows` (b m bool); the others become padding rows."""
        return replace(self, classes=torch.where(rows, self.classes, NO_TUBE))

    def at(self, points: Tensor) -> PixelTargets:
        """The targets on points b p 2 of every image, each with weight 1, or 0 where it touches a frame without label.
        """
        masks = at_points(self.masks, points)                                                # b m (i p)
        weights = torch.ones_like(masks[:, 0])
        if self.unlabelled is not None:
            weights = (at_points(self.unlabelled, points)[:, 0] == 0).float()
            masks = masks * weights[:, None]
        return PixelTargets(masks=masks, areas=masks.sum(-1), classes=self.classes, weights=weights,
                            labelled=masks.amax(1), compared=weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Queries and the tubes that they can be matched to."""

    queries: slice
    truth: ImageTargets
    reserved: Tensor | None = None      # class of each query; None: queries and tubes are matched
    masks: Tensor | None = None         # number of masks, from those of all training workers

    def counted(self, config: MaskLossConfig) -> _Group:
        """With the number of masks. It is the same for all layers, so workers exchange it once, not once per layer."""
        masks = config.count_masks(self.truth.classes, queries=self.queries.stop - self.queries.start)
        return replace(self, masks=masks_of_share(masks, items=len(self.truth.classes)))


def as_images(maps: Tensor, *, stacked: bool = True) -> Tensor:
    """b n t h w -> b n i h w: the frames of a clip as one long image, stacked along height, or each by itself."""
    return rearrange(maps, "b n t h w -> b n 1 (t h) w") if stacked else maps


def at_points(images: Tensor, points: Tensor) -> Tensor:
    """images b n i h w at points b p 2, the same in all images of an item -> b n (i p)."""
    values = sample_points(rearrange(images, "b n i h w -> b (n i) h w"), points)
    return rearrange(values, "b (n i) p -> b n (i p)", i=images.shape[2])


def at_own_points(images: Tensor, points: Tensor) -> Tensor:
    """images x i h w at points (x i) p 2, each at its own -> x (i p)."""
    values = sample_points(rearrange(images, "x i h w -> (x i) 1 h w"), points)
    return rearrange(values, "(x i) 1 p -> x (i p)", x=len(images))


def reserved_tubes(truth: ImageTargets, classes: Tensor) -> Tensor:
    """The tube of each reserved query: the first one of its class, NO_TUBE where the clip has none. b n."""
    same = truth.classes[:, None] == classes[:, None]                                        # b n m
    return torch.where(same.any(-1), same.int().argmax(-1), NO_TUBE)
