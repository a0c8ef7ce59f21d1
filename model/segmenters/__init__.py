"""Segmenters: pixels of a clip to a `ClipPrediction`. The `build` of a config makes its segmenter."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from model.contracts import ClipPrediction
from model.segmenters.mask2former import Mask2FormerConfig
from model.segmenters.tube_link import TubeLinkConfig
from model.segmenters.video_kmax import VideoKMaxConfig

# A card without `kind` is read as the config that knows most of its fields, the first of equals.
SegmenterConfig = VideoKMaxConfig | Mask2FormerConfig | TubeLinkConfig


class Segmenter(Protocol):
    """Stage one. Clips of a batch never see each other; any number of frames from 1 up makes a clip, and one alone for
    a frame detector.
    """

    config: SegmenterConfig

    def __call__(self, frames: Tensor, real_pixels: Tensor | None = None, *, supervise: bool = False,
                 attention: dict[str, Tensor] | None = None) -> ClipPrediction:
        """frames: b t 3 H W RGB, uint8 or 0 to 255. real_pixels: b t H W bool, false in padding; None: all real.

        supervise: also fill `auxiliary` and `semantic_logits`, which only losses read. attention: a dict is filled
        with the attention maps of within-clip tracking, for pictures; it stays empty when the segmenter has none.
        """

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """b k n d with b k d p -> b k n p: the segmenter's own masks on pixels of which features were kept."""
