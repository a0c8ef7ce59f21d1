"""Several systems over one video in one pass of the segmenter that they share.

The segmenter is nearly all of the cost of a video. Systems that differ in what comes after it (heads, association,
thresholds) are therefore compared in one pass: each clip is segmented once and shown to the makers of all of them, and
the pixel features that heads wait for are kept once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.contracts import VideoResults
from model.inference.driver import check_clip
from model.inference.makers import shared_frames
from pipeline.clips import VideoSource
from pipeline.datasets.raw_video import open_video
from pipeline.progress import Watch
from pipeline.spool import TensorSpool
from pipeline.system import System, named


@dataclass(frozen=True)
class _Filled:
    """A spool that somebody else fills: reading it gives what is there, writing to it does nothing."""

    spool: TensorSpool

    def append(self, clip: tuple[Tensor, int], /) -> None:
        """Drop the clip, which is in the spool already."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter(self.spool)


@torch.no_grad()
def predict_together(systems: Sequence[System], video: VideoSource | Path | str, *,
                     watch: Watch | None = None) -> list[VideoResults]:
    """The results of each system on one video, equal to those of its own `predict`.

    Raises ValueError unless all systems hold the same segmenter and cut and scale videos alike, and BadInput for a
    video that cannot be read.
    """
    refuse_unlike(systems)
    first = systems[0]
    source = open_video(video) if isinstance(video, Path | str) else video
    geometry = first.resize.geometry(source.size)
    overlap = shared_frames(first.inference)
    clips = first.clip_predictions(source, overlap=overlap, shorten=first.shortens,
                                   places=any(system.reads_places for system in systems))
    if watch is not None:
        clips = watch.over("segmenting", clips, len(source.frame_names),
                           frames=lambda pair: max(pair[0].valid - overlap, 1))
    with ExitStack() as stack:
        spools = _spools(systems, stack)
        makers = [system.makers(geometry, spool, head=system.head) for system, spool in zip(systems, spools)]
        start = 0
        for clip, prediction in clips:
            check_clip(prediction, clip.valid, num_classes=len(first.classes), start=start)
            start += clip.valid
            for maker in (maker for group in makers for maker in group):
                maker.add(prediction, clip.valid)
        results = [{name: result for maker in group for name, result in maker.finish().items()} for group in makers]
    return [named(result, video_id=source.video_id, frame_names=tuple(source.frame_names), size=source.size)
            for result in results]


def _spools(systems: Sequence[System], stack: ExitStack) -> list[TensorSpool | _Filled | None]:
    """The spool of each system that waits: one for the pixel features of all heads, one for the masks of each other."""
    spools: list[TensorSpool | _Filled | None] = []
    shared = None
    for system in systems:
        if system.head is not None and shared is not None:
            spools.append(_Filled(shared))
            continue
        spools.append(stack.enter_context(closing(TensorSpool())) if system.waits else None)
        shared = spools[-1] if system.head is not None else shared
    return spools


def refuse_unlike(systems: Sequence[System]) -> None:
    """Raise ValueError where one pass of a segmenter cannot serve all systems, with the setting that differs."""
    if not systems:
        raise ValueError("there is no system to predict with; give at least one")
    first = systems[0]
    for other in systems[1:]:
        if other.segmenter is not first.segmenter or other.classes != first.classes:
            raise ValueError("the systems hold different segmenters, so one pass cannot serve them; predict with each "
                             "on its own")
        for setting in ("clip_length", "resize", "shortens"):
            if getattr(other, setting) != getattr(first, setting):
                raise ValueError(f"the systems differ in {setting} ({getattr(first, setting)} and "
                                 f"{getattr(other, setting)}), so they need passes of their own")
        if shared_frames(other.inference) != shared_frames(first.inference):
            raise ValueError(f"the systems cut clips that overlap by {shared_frames(first.inference)} and "
                             f"by {shared_frames(other.inference)} frames, so they need passes of their own")
        if other.inference.precision != first.inference.precision:
            raise ValueError(f"the systems compute in {first.inference.precision} and in {other.inference.precision}, "
                             "so they need passes of their own")
