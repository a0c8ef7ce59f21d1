"""Ground truth on one pixel axis, so that one set of losses serves dense clips and weighted samples of videos.

The losses beside this file read nothing but sums over pixels. A dense clip has weight 1 everywhere. A sample whose
weights count the pixels that each entry stands for gives the same sums in expectation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import einsum, rearrange
from torch import Tensor

from model.contracts import ClipTargets, PixelEvidence
from model.labels import FIRST_OVERLAP

NO_TUBE = -1    # class of a padding row; tube of a query that is matched to none


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelTargets:
    """Ground truth of b clips (p is t h w) or b videos (p is k p). Padding rows have no weight anywhere."""

    masks: Tensor       # b m p   float; weight of the pixel where the tube covers it, else 0; tubes may overlap
    areas: Tensor       # b m     float; pixels of each tube, exact even where the pixels are a sample
    classes: Tensor     # b m     int64; NO_TUBE in padding rows
    weights: Tensor     # b p     float; pixels each entry stands for, 0: ignore
    labelled: Tensor    # b p     float; the weight where a tube covers the pixel, 0 on void
    compared: Tensor    # b p     float; the weight where masks are compared: `labelled`, or `weights` if void counts

    @property
    def void(self) -> Tensor:
        """b p: the weight of the pixels that no tube covers, 0 elsewhere."""
        return self.weights - self.labelled

    @property
    def known(self) -> Tensor:
        """b bool: false where no pixel has a weight, since somebody labelled none of the frames."""
        return self.weights.any(-1)

    def sharing_pixels(self) -> PixelTargets:
        """Tubes that overlap on a pixel get equal shares of it, so that a pixel never counts more than once."""
        tiny = torch.finfo(self.masks.dtype).tiny
        share = self.weights / torch.maximum(self.masks.sum(1), self.weights).clamp(min=tiny)    # b p
        masks = self.masks * share[:, None]
        return replace(self, masks=masks, areas=masks.sum(-1))

    def keeping(self, rows: Tensor) -> PixelTargets:
        """Only the tubes of `rows` (b m bool); pixels that only other tubes cover become void."""
        masks = self.masks * rows[..., None]
        labelled = masks.amax(1)
        compared = self.weights if self.compared is self.weights else labelled
        return replace(self, masks=masks, areas=self.areas * rows, labelled=labelled, compared=compared)

    def counting_void(self) -> PixelTargets:
        """The same tubes with masks compared on void too, where every prediction is wrong."""
        return replace(self, compared=self.weights)

    def ignoring_void(self) -> PixelTargets:
        """The same tubes with masks compared on labelled pixels alone."""
        return replace(self, compared=self.labelled)

    def at(self, positions: Tensor) -> PixelTargets:
        """The targets at some positions (s) of the pixel axis, the same in all items; areas still count all pixels."""
        kept = {name: getattr(self, name)[..., positions] for name in ("masks", "weights", "labelled", "compared")}
        return replace(self, **kept)


def clip_targets(clips: Sequence[ClipTargets]) -> PixelTargets:
    """The targets of b clips of one size, every pixel with weight 1, or 0 in frames without a label."""
    masks = [rearrange(clip.masks, "m t h w -> m (t h w)") for clip in clips]
    padded = masks[0].new_zeros((len(clips), _rows(masks), masks[0].shape[-1]), dtype=torch.float32)
    for item, mask in zip(padded, masks):
        item[:len(mask)] = mask
    labelled = padded.amax(1)
    weights = torch.ones_like(labelled)
    for item, clip in zip(weights, clips):
        if clip.unlabelled is not None:
            item.view(len(clip.unlabelled), -1)[clip.unlabelled] = 0
    return PixelTargets(masks=padded, areas=padded.sum(-1), classes=_classes([clip.classes for clip in clips]),
                        weights=weights, labelled=labelled, compared=labelled)


def video_targets(evidence: PixelEvidence) -> PixelTargets:
    """The stored pixels of all clips of each video on one axis; areas are those of the whole video."""
    weights = rearrange(evidence.weights, "b k p -> b (k p)").float()
    tubes = rearrange(evidence.tubes, "b k p -> b 1 (k p)")
    rows = torch.arange(_rows(evidence.classes), device=tubes.device)
    masks = (tubes == rows[:, None]) * weights[:, None]                                          # b m (k p)
    for item, overlaps, weight, tube in zip(masks, evidence.overlaps, weights, tubes):
        shared = tube == FIRST_OVERLAP - torch.arange(len(overlaps), device=tubes.device)[:, None]      # s (k p)
        item[:overlaps.shape[1]] += einsum(overlaps.float(), shared * weight, "s m, s p -> m p")
    areas = weights.new_zeros(masks.shape[:2])
    for item, per_clip in zip(areas, evidence.areas):
        item[:per_clip.shape[-1]] = per_clip.sum(0)
    labelled = masks.amax(1)
    return PixelTargets(masks=masks, areas=areas, classes=_classes(evidence.classes), weights=weights,
                        labelled=labelled, compared=labelled)


def each_clip(targets: PixelTargets, evidence: PixelEvidence) -> PixelTargets:
    """The targets of every clip by itself, (b k) of them; a tube without a pixel in a clip is a padding row there.

    targets: `video_targets` of the same evidence.
    """
    clips = evidence.weights.shape[1]
    areas = targets.areas.new_zeros(len(targets.areas), clips, targets.areas.shape[1])
    for item, per_clip in zip(areas, evidence.areas):
        item[:, :per_clip.shape[-1]] = per_clip
    classes = torch.where(areas > 0, targets.classes[:, None], NO_TUBE)
    per_clip = {name: rearrange(getattr(targets, name), "b (k p) -> (b k) p", k=clips)
                for name in ("weights", "labelled", "compared")}
    masks = rearrange(targets.masks, "b m (k p) -> (b k) m p", k=clips)
    return PixelTargets(masks=masks, areas=rearrange(areas, "b k m -> (b k) m"),
                        classes=rearrange(classes, "b k m -> (b k) m"), **per_clip)


def mean_where_not_zero(loss: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """b x -> b: mean over the entries whose loss is not 0; 0 where there are none.

    `loss` is already multiplied by `weights`. An entry that is exactly right is left out like one that is masked: the
    official criterion counts that way (`num_non_zero` in kmax_deeplab/modeling/criterion.py).
    """
    counted = loss != 0
    count = counted.sum(-1).clamp(min=1) if weights is None else (counted * weights).sum(-1)
    return loss.sum(-1) / count.clamp(min=torch.finfo(loss.dtype).tiny)


def _rows(tubes: Sequence[Tensor]) -> int:
    return max(1, *(len(item) for item in tubes))    # at least one row, so that "no tube" is no special case


def _classes(classes: Sequence[Tensor]) -> Tensor:
    padded = classes[0].new_full((len(classes), _rows(classes)), NO_TUBE)
    for item, values in zip(padded, classes):
        item[:len(values)] = values
    return padded
