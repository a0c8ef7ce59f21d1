"""Losses of a frame detector and VITA's head that are trained together (arXiv 2206.04403, section 3.3, appendix A.2).

There are frame losses on every frame, video losses on whole clips at points of each frame, and the similarity loss
between frame queries and video queries. Facts follow sukjunhwang/VITA, `train_model` in `vita/vita_model.py` and
`vita/modeling/vita_criterion.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from einops import rearrange
from torch import Tensor

from model.contracts import ClipPrediction, ClipTargets, LayerPrediction
from model.joint import JointPrediction
from model.losses.binary_masks import MaskLossConfig
from model.losses.linking import part_of
from model.losses.mask2former import Mask2FormerCriterion, Mask2FormerLossConfig
from model.losses.points import Draw, uniform
from model.losses.targets import NO_TUBE
from model.losses.vita import VitaLossConfig, queries_to_compare, similarity_loss


class JointCriterion:
    """Weighted losses by name: those of the frames, those of the videos prefixed `video_`, and `similarity`."""

    def __init__(self, frames: Mask2FormerLossConfig, videos: VitaLossConfig, *, layers: int) -> None:
        """layers: how many decoder layers of the detector the head reads. Videos get as many points as frames do."""
        shared = {field.name: getattr(videos, field.name) for field in fields(MaskLossConfig)}
        self.layers = layers
        self.similarity_weight = videos.similarity_weight
        self.frames = Mask2FormerCriterion(frames)
        self.videos = Mask2FormerCriterion(replace(frames, frames="apart", **shared))

    def __call__(self, prediction: JointPrediction, targets: Sequence[ClipTargets], *,
                 generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """targets: of the b clips. The targets of a frame are the tubes with a pixel in it."""
        length = len(prediction.frames.class_logits) // len(targets)
        in_frames = [part_of(target, slice(t, t + 1)) for target in targets for t in range(length)]
        videos = self._clips(prediction)
        repeated = list(targets) * self.layers
        losses = self.frames(prediction.frames, in_frames, generator=generator)
        losses |= {f"video_{name}": loss for name, loss in self.videos(videos, repeated, generator=generator).items()}
        if self.similarity_weight:
            draw = uniform(videos.mask_logits.device, generator=generator)
            losses["similarity"] = self.similarity_weight * self._similarity(prediction, targets, in_frames, draw)
        return losses

    def _clips(self, prediction: JointPrediction) -> ClipPrediction:
        """The videos as predictions about clips; no loss reads their queries."""
        *earlier, last = [LayerPrediction(class_logits=video.class_logits, mask_logits=masks)
                          for video, masks in zip(prediction.videos, prediction.mask_logits, strict=True)]
        return replace(prediction.frames, class_logits=last.class_logits, mask_logits=last.mask_logits,
                       auxiliary=tuple(earlier))

    @torch.no_grad()
    def _match(self, prediction: JointPrediction, targets: Sequence[ClipTargets],
               in_frames: Sequence[ClipTargets], draw: Draw) -> tuple[Tensor, Tensor]:
        """The tube of the clip that each frame query (l b) t n and each video query (l b) n is matched to.

        Both are matched as in their own losses, at new random points.
        """
        layers = [*prediction.frames.auxiliary, prediction.frames][-self.layers:]
        length = len(in_frames) // len(targets)
        truth = self.frames.truth(in_frames)
        matched = []
        for layer in layers:
            matched += [tubes_of_clip(tubes, in_frames[frame], targets[frame // length])
                        for frame, tubes in enumerate(self.frames.match(layer, truth, draw))]
        videos = self._clips(prediction)
        return (rearrange(torch.stack(matched), "(b t) n -> b t n", t=length),
                self.videos.match(videos, self.videos.truth(list(targets) * self.layers), draw))

    def _similarity(self, prediction: JointPrediction, targets: Sequence[ClipTargets],
                    in_frames: Sequence[ClipTargets], draw: Draw) -> Tensor:
        with torch.autocast(prediction.mask_logits[-1].device.type, enabled=False):
            matched = self._match(prediction, targets, in_frames, draw)
            return similarity_loss(*queries_to_compare(prediction.videos[-1], *matched))


def tubes_of_clip(tubes: Tensor, in_frame: ClipTargets, in_clip: ClipTargets) -> Tensor:
    """tubes: n positions in a frame's targets, or NO_TUBE -> the positions of the same tracks in the clip's targets."""
    if not len(in_frame.track_ids):
        return tubes
    positions = (in_frame.track_ids[:, None] == in_clip.track_ids).int().argmax(1)
    return torch.where(tubes == NO_TUBE, NO_TUBE, positions[tubes.clamp(min=0)])
