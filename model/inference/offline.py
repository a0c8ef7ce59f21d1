"""A cross-clip head over the queries of all clips: classes and masks of the whole video at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from model.association.links import reordered_video
from model.contracts import ClipPrediction, VideoQueries
from model.cross_clip import CrossClipHead
from model.inference.near_online import Merger
from model.precision import TestPrecision, autocast

VideoOrder = Callable[[VideoQueries], Tensor]       # of all clips of a video, b = 1 -> permutations k n


class FeatureSpool(Protocol):
    """Keeps pixel features (d t h w) and real frames of each clip until the head was run: a list, or a file."""

    def append(self, clip: tuple[Tensor, int], /) -> None: ...

    def __iter__(self) -> Iterator[tuple[Tensor, int]]: ...

    def clear(self) -> None: ...


class QueryCollector:
    """Stacks what a cross-clip head reads of each clip. The query cache is filled by it too. A `ResultMaker`."""

    def __init__(self) -> None:
        self._clips: list[dict[str, Tensor | None]] = []

    def add(self, clip: ClipPrediction, frames: int) -> None:
        """See `ResultMaker`; the clips are aligned, unless the head reads queries in their own order."""
        part = {field.name: getattr(clip, field.name) for field in fields(VideoQueries)}
        if clip.places is not None:     # as many frames in every clip; nothing is seen anew in repeats of the last one
            most = self._clips[0]["places"].shape[2] if self._clips else clip.places.shape[2]
            part["places"] = F.pad(clip.places[:, :, :frames], (0, 0, 0, most - frames))
        self._clips.append(part)

    def finish(self) -> dict[str, VideoQueries]:
        """The queries of all clips, b = 1. Raises ValueError without any clip."""
        if not self._clips:
            raise ValueError("the video has no clips, so there are no queries to collect")
        stacked = {name: None if part is None else torch.stack([clip[name] for clip in self._clips], dim=1)
                   for name, part in self._clips[0].items()}
        self._clips = []
        return {"queries": VideoQueries(**stacked)}


class Offline:
    """Collects queries and pixel features, runs the head once, and merges its masks clip by clip. A `ResultMaker`.

    Its clips are aligned, unless it has an `order`. Pixel features, by far the largest part, wait in `spool`.
    """

    def __init__(self, head: CrossClipHead, new_mergers: Mapping[str, Callable[[], Merger]], *,
                 spool: FeatureSpool | None = None, precision: TestPrecision = "fp32", order: VideoOrder | None = None
                 ) -> None:
        """spool: where pixel features wait; by default in memory. precision: of the head. order: of the queries of
        clips that are not aligned, before the head reads them."""
        self.head = head
        self.precision = precision
        self.new_mergers = new_mergers
        self.spool = [] if spool is None else spool
        self.order = order
        self._collector = QueryCollector()

    def add(self, clip: ClipPrediction, frames: int) -> None:
        """See `ResultMaker`."""
        self._collector.add(clip, frames)
        self.spool.append((clip.pixel_features[0], frames))

    def finish(self) -> dict[str, Any]:
        """See `ResultMaker`; once for a video, whose clips must all be known."""
        queries = self._collector.finish()["queries"]
        if self.order is not None:
            queries = reordered_video(queries, self.order(queries))
        return merge_video(queries, self.spool, self.head, new_mergers=self.new_mergers,
                           precision=self.precision)


@torch.no_grad()
def merge_video(queries: VideoQueries, features: Iterable[tuple[Tensor, int]], head: CrossClipHead, *,
                new_mergers: Mapping[str, Callable[[], Merger]], precision: TestPrecision = "fp32") -> dict[str, Any]:
    """queries: of one video. features: d t h w and the number of real frames, for every clip in time.

    precision: of the head; what the mergers get is float32.
    """
    mergers = {name: new() for name, new in new_mergers.items()}
    network = partial(autocast, queries.queries.device, precision)
    with network():
        video = head(queries)[-1]
    for embeddings, (pixels, frames) in zip(video.mask_embeddings.unbind(1), features, strict=True):
        pixels = pixels[None, None, :, :frames].to(embeddings)                      # b k d t h w, b = k = 1
        with network():
            masks = head.mask_logits(embeddings[:, None], pixels)[0, 0].float()     # n t h w
        for merger in mergers.values():
            merger.add(masks)
    return {name: merger.finish(video.class_logits[0].float()) for name, merger in mergers.items()}
