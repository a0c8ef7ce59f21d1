"""Stage two: heads that read the queries of all clips and decide about the whole video. A config builds its head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from model.contracts import VideoPrediction, VideoQueries
from model.cross_clip.maxtron import MaXTronHeadConfig
from model.cross_clip.tube_link import TubeLinkHeadConfig
from model.cross_clip.vita import VitaHeadConfig, VitaTestConfig

# A card without `kind` is read as the config that knows most of its fields, the first of equals.
CrossClipConfig = MaXTronHeadConfig | TubeLinkHeadConfig | VitaHeadConfig
HeadTestConfig = VitaTestConfig     # settings of a head that may differ at test time; its `kind` is that of the head


class CrossClipHead(Protocol):
    """The interface of all cross-clip heads. A head never sees a frame, and a batch of two videos equals two of one."""

    def __call__(self, queries: VideoQueries) -> tuple[VideoPrediction, ...]:
        """One prediction per layer, all supervised alike; the last is the result."""
        ...

    def mask_logits(self, mask_embeddings: Tensor, pixel_features: Tensor) -> Tensor:
        """b k n d with b k d *pixels -> b k n *pixels; for all clips or a few, all pixels or a sample of them."""
        ...

    def initialise_from(self, segmenter: Mapping[str, Tensor]) -> None:
        """Copy the weights that the head shares with the segmenter. segmenter: its state dict."""
        ...
