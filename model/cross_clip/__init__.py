"""Stage two: heads that read the aligned queries of all clips and speak about the whole video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from model.contracts import VideoPrediction, VideoQueries
from model.cross_clip.maxtron import MaXTronHead, MaXTronHeadConfig
from model.cross_clip.tube_link import TubeLinkHead, TubeLinkHeadConfig
from model.cross_clip.vita import VitaHead, VitaHeadConfig

CrossClipConfig = MaXTronHeadConfig | TubeLinkHeadConfig | VitaHeadConfig     # the type of the config picks the head


class CrossClipHead(Protocol):
    """What every cross-clip head does. A head never sees a frame, and a batch of two videos equals two of one."""

    def __call__(self, queries: VideoQueries) -> tuple[VideoPrediction, ...]:
        """One prediction per layer, all supervised alike; the last is the answer."""
        ...

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """b k n d with b k d *pixels -> b k n *pixels; for all clips or a few, all pixels or a sample of them."""
        ...

    def initialise_from(self, segmenter: Mapping[str, Tensor]) -> None:
        """Take over what the segmenter already knows. segmenter: its state dict."""
        ...


def build_cross_clip_head(config: CrossClipConfig) -> CrossClipHead:
    """The head a config describes."""
    match config:
        case MaXTronHeadConfig():
            return MaXTronHead(config)
        case TubeLinkHeadConfig():
            return TubeLinkHead(config)
        case VitaHeadConfig():
            return VitaHead(config)
    raise ValueError(f"{type(config).__name__} describes no cross-clip head; see model.cross_clip.CrossClipConfig")
