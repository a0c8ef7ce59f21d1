"""Segmenters: pixels of a clip to a `ClipPrediction`. The type of a config picks the class, here and nowhere else."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from model.contracts import ClipPrediction
from model.segmenters.mask2former import Mask2Former, Mask2FormerConfig
from model.segmenters.tube_link import TubeLink, TubeLinkConfig
from model.segmenters.video_kmax import VideoKMax, VideoKMaxConfig

# A card is read as the kind that knows most of its fields, the first of equals: a frame detector is the narrower kind.
SegmenterConfig = VideoKMaxConfig | Mask2FormerConfig | TubeLinkConfig


class Segmenter(Protocol):
    """Stage one. Clips of a batch never see each other; any number of frames from 1 up makes a clip, and one alone for
    a frame detector.
    """

    config: SegmenterConfig

    def __call__(self, frames: Tensor, real_pixels: Tensor | None = None, *, supervise: bool = False,
                 return_attention: bool = False) -> ClipPrediction:
        """frames: b t 3 H W RGB, uint8 or 0 to 255. real_pixels: b t H W bool, false in padding; None: all real.

        supervise: also fill `auxiliary` and `semantic_logits`, which only losses read. return_attention: also fill
        `attention`, for pictures; empty where the segmenter has none.
        """


def build_segmenter(config: SegmenterConfig) -> nn.Module:
    """The `Segmenter` a config describes, freshly initialised."""
    match config:
        case VideoKMaxConfig():
            return VideoKMax(config)
        case Mask2FormerConfig():
            return Mask2Former(config)
        case TubeLinkConfig():
            return TubeLink(config)
    raise ValueError(f"{type(config).__name__} is not the config of a segmenter; see model.segmenters.SegmenterConfig")
