"""Class and mask logits of one clip -> the query that owns each pixel: MaskFormer's panoptic rule, frame by frame.

The rule (arXiv 2107.06278, appendix; `panoptic_postprocess_with_query` in lxtGH/Tube-Link): queries with a high class
score compete for every pixel by class score times mask score. A query paints the pixels that it owns inside its own
mask. A query that owns too little of its mask in a frame is dropped there, and its pixels stay void.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from model.postprocess.panoptic import TILE_CPU, TILE_GPU
from model.postprocess.resize import MaskResizer

NOBODY = -1


@dataclass(frozen=True, kw_only=True)
class TubePanopticConfig:
    """Thresholds. The defaults are those of every released Tube-Link model for panoptic video."""

    kind: Literal["tube"] = "tube"
    score: float = 0.8      # class score that a query must exceed
    overlap: float = 0.8    # part of its mask (mask score 0.5 or more) that a query must own in a frame
    shared_frames: int = 0  # of neighbouring clips; the first clip of a frame paints it, the next one links by it too

    def __post_init__(self) -> None:
        for name in ("score", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"tube_panoptic.{name}={getattr(self, name)} is not a fraction; choose a value "
                                 "from 0 to 1")
        if self.shared_frames < 0:
            raise ValueError(f"tube_panoptic.shared_frames={self.shared_frames} is negative; 0: clips share no frame")


@dataclass(frozen=True, slots=True, kw_only=True)
class SureQueries:
    """The x queries of a clip that may own pixels, in ascending order."""

    queries: Tensor     # x int64
    classes: Tensor     # x int64
    scores: Tensor      # x float32, 0-1


def sure_queries(class_logits: Tensor, *, config: TubePanopticConfig) -> SureQueries:
    """class_logits n classes+1 -> the queries whose best class is not "no object" and scores above `config.score`."""
    scores, classes = class_logits.float().softmax(-1).max(-1)
    keep = ((classes != class_logits.shape[-1] - 1) & (scores > config.score)).nonzero()[:, 0]
    return SureQueries(queries=keep, classes=classes[keep], scores=scores[keep])


@torch.no_grad()
def paint_frames(mask_logits: Tensor, sure: SureQueries, *, resizer: MaskResizer, config: TubePanopticConfig
                 ) -> Iterator[np.ndarray]:
    """mask_logits n t h w -> t maps H W of indices into `sure`, NOBODY elsewhere."""
    for frame in mask_logits[sure.queries].float().unbind(1):
        if not frame.isfinite().all():
            raise ValueError("the mask logits of a clip hold NaN or infinity; the network diverged or its checkpoint "
                             "does not fit")
        if len(frame):
            yield _paint(frame, sure.scores, resizer, config)
        else:
            yield np.full(resizer.output, NOBODY)


def _paint(logits: Tensor, scores: Tensor, resizer: MaskResizer, config: TubePanopticConfig) -> np.ndarray:
    """logits x h w -> H W."""
    painted = torch.empty(resizer.output, dtype=torch.int64, device=logits.device)
    owned = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    areas = torch.zeros_like(owned)
    height, width = TILE_CPU if logits.device.type == "cpu" else TILE_GPU
    for rows, columns in resizer.tiles(height=height, width=width):
        masks = resizer.tile(logits, rows=rows, columns=columns).sigmoid()
        owner = (scores[:, None, None] * masks).argmax(0)                                    # H W of the tile
        inside = masks >= 0.5
        owned += torch.bincount(owner.flatten(), minlength=len(logits))
        areas += inside.sum((1, 2))
        painted[rows, columns] = torch.where(inside.gather(0, owner[None])[0], owner, NOBODY)
    enough = (areas > 0) & (owned.double() / areas.clamp(min=1) >= config.overlap)
    indices = torch.where(enough, torch.arange(len(logits), device=logits.device), NOBODY)
    return torch.where(painted == NOBODY, NOBODY, indices[painted.clamp(min=0)]).cpu().numpy()
