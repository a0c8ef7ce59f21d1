"""Class and mask logits -> a class per pixel: Mask2Former's semantic rule (arXiv 2112.01527), clip by clip.

The score of a class at a pixel is the sum over queries of class score times mask score; the best class wins. Clips are
not linked: the class of a pixel depends on its own clip alone.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import einsum
from torch import Tensor

from model.contracts import ClipPrediction, Geometry, SemanticVideo
from model.postprocess.panoptic import TILE_CPU, TILE_GPU, PaintedFrames, packed
from model.postprocess.resize import MaskResizer


class SemanticMerger:
    """A `ResultMaker` (model/inference/driver.py) of semantic videos. Holds kilobytes per frame."""

    def __init__(self, *, num_classes: int, geometry: Geometry) -> None:
        self.num_classes = num_classes
        self.geometry = geometry
        self._maps: list[tuple[np.dtype, bytes]] = []

    @torch.no_grad()
    def add(self, clip: ClipPrediction, frames: int) -> None:
        """clip: b = 1. frames: the number of its frames that are not repeats of the last one."""
        mask_logits = clip.mask_logits[0, :, :frames]
        class_logits = clip.class_logits[0]
        resizer = MaskResizer(self.geometry, size=tuple(mask_logits.shape[2:]), device=mask_logits.device)
        with torch.autocast(mask_logits.device.type, enabled=False):
            class_scores = class_logits.float().softmax(-1)[:, :-1]                          # n classes
            for frame in mask_logits.unbind(1):
                labels = self._labels(frame.float(), class_scores, resizer)
                self._maps.append(packed(labels, largest=self.num_classes - 1))

    def _labels(self, logits: Tensor, class_scores: Tensor, resizer: MaskResizer) -> np.ndarray:
        """logits n h w -> H W classes."""
        labels = torch.empty(resizer.output, dtype=torch.int64, device=logits.device)
        checksum = torch.zeros((), device=logits.device)
        height, width = TILE_CPU if logits.device.type == "cpu" else TILE_GPU
        for rows, columns in resizer.tiles(height=height, width=width):
            masks = resizer.tile(logits, rows=rows, columns=columns).sigmoid()
            best = einsum(class_scores, masks, "n classes, n h w -> classes h w").max(0)
            labels[rows, columns] = best.indices
            checksum += best.values.sum()
        if not checksum.isfinite():
            raise ValueError(f"the logits of frame {len(self._maps)} hold NaN or infinity; the network diverged or its "
                             "checkpoint does not fit")
        return labels.cpu().numpy()

    def finish(self) -> dict[str, PaintedFrames]:
        """T maps H W int32 of classes, painted when asked for, under "semantic"."""
        if not self._maps:
            raise ValueError("no clip was added, so there is nothing to segment; the video has no frames")
        frames = PaintedFrames(tuple(self._maps), self.geometry.source, np.arange(self.num_classes, dtype=np.int32))
        self._maps = []
        return {"semantic": frames}


def semantic_video(frames: PaintedFrames, *, video_id: str, frame_names: tuple[str, ...]) -> SemanticVideo:
    """Attach the names of the video and its frames."""
    if len(frames) != len(frame_names):
        raise ValueError(f"video {video_id!r} has {len(frame_names)} frames but {len(frames)} were segmented; every "
                         "frame must be part of a clip")
    return SemanticVideo(video_id=video_id, frame_names=tuple(frame_names), frames=frames)
