"""Masks that wait until all clips of a video are known, since the order of their queries depends on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from model.contracts import ClipPrediction
from model.inference.alignment import reordered
from model.inference.driver import ResultMaker
from model.inference.offline import FeatureSpool, QueryCollector, VideoOrder


class Waiting:
    """Shows the clips to the makers inside once the video has ended, each in its order. A `ResultMaker` itself.

    The makers inside see no pixel features. Masks, by far the largest part, wait in `spool`.
    """

    def __init__(self, makers: Sequence[ResultMaker], *, order: VideoOrder, spool: FeatureSpool | None = None) -> None:
        """order: of the queries of all clips. spool: where masks wait; by default in memory."""
        self.makers = makers
        self.order = order
        self.spool = [] if spool is None else spool
        self._collector = QueryCollector()
        self._clips: list[ClipPrediction] = []      # without masks and pixel features

    def add(self, clip: ClipPrediction, frames: int) -> None:
        """See `ResultMaker`."""
        self._collector.add(clip, frames)
        self.spool.append((clip.mask_logits[0], frames))
        self._clips.append(replace(clip, mask_logits=clip.mask_logits[..., :0, :0].clone(),
                                   pixel_features=clip.pixel_features[..., :0, :0].clone()))

    def finish(self) -> dict[str, Any]:
        """See `ResultMaker`; once for a video, whose clips must all be known."""
        orders = self.order(self._collector.finish()["queries"])
        for clip, order, (masks, frames) in zip(self._clips, orders, self.spool, strict=True):
            whole = replace(clip, mask_logits=masks[None].to(clip.class_logits))
            for maker in self.makers:
                maker.add(reordered(whole, order), frames)
        self._clips = []
        return {name: result for maker in self.makers for name, result in maker.finish().items()}
