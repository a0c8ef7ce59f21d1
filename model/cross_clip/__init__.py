"""Stage two: heads that read the queries of all clips and decide about the whole video. A config builds its head."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from importlib import import_module
from operator import or_
from typing import Protocol

from torch import Tensor

from model.contracts import VideoPrediction, VideoQueries

# One row a head: a file of this folder and the config in it. Nothing else has to be changed for a new one.
# A card without `kind` is read as the config that has most of its fields, the first of equals.
ROWS = (
    "maxtron.MaXTronHeadConfig",
    "tube_link.TubeLinkHeadConfig",
    "vita.VitaHeadConfig",
)

HEADS = tuple(getattr(import_module(f"{__name__}.{row.split('.')[0]}"), row.split(".")[1]) for row in ROWS)
CrossClipConfig = reduce(or_, HEADS)
# Settings of a head that may differ at test time; their `kind` is that of the head.
HeadTestConfig = reduce(or_, [head.at_test_time for head in HEADS if head.at_test_time is not None])


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
