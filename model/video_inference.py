"""From the clips of one video to its panoptic result, clip by clip; knows no files and no segmenter.

Both ways align the queries of each clip with the clip before, and merge masks into one decision per query for the whole
video. They differ in between only:

    near-online   clips -> align                          -> mean class logits, the clips' own masks  -> merge
    offline       clips -> align -> head over all clips   -> the head's classes, masks clip by clip   -> merge

`clips` are pairs (prediction of one clip, b = 1; how many of its frames are real). The last clip of a video is filled
up by repeating its last frame; the repeats are cut before merging.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from model.association.hungarian import QueryAligner
from model.contracts import ClipPrediction, PanopticVideo, VideoQueries
from model.cross_clip import CrossClipHead
from model.postprocess.panoptic import MergedVideo

Clips = Iterable[tuple[ClipPrediction, int]]
AlignBy = Literal["mask_embeddings", "queries"] | None     # kMaX, Tube-Link; None: queries keep their own order (VITA)


class FeatureSpool(Protocol):
    """Keeps pixel features (d t h w) and real frames of each clip until the head has spoken: a list, or a file."""

    def append(self, clip: tuple[Tensor, int], /) -> None: ...

    def __iter__(self) -> Iterator[tuple[Tensor, int]]: ...


class Merger(Protocol):
    """Makes one decision per query for a whole video from aligned masks: `PanopticMerger`, `TrackMerger`."""

    def add(self, mask_logits: Tensor, /) -> None:
        """mask_logits: n t h w; the next frames of the video."""

    def finish(self, class_logits: Tensor, /) -> Any:
        """class_logits: n classes+1 for the whole video -> the result."""


class Together:
    """Several mergers as one, so that one run of the models gives tracks and a panoptic video."""

    def __init__(self, mergers: Mapping[str, Merger]) -> None:
        self.mergers = dict(mergers)

    def add(self, mask_logits: Tensor) -> None:
        """See `Merger`."""
        for merger in self.mergers.values():
            merger.add(mask_logits)

    def finish(self, class_logits: Tensor) -> dict[str, Any]:
        """The results by the mergers' names."""
        return {name: merger.finish(class_logits) for name, merger in self.mergers.items()}


def align(clips: Clips, *, by: AlignBy = "mask_embeddings") -> Iterator[tuple[ClipPrediction, int, Tensor]]:
    """Yields each clip with the order n of its queries: entry i is the query that takes slot i of the video."""
    aligner = QueryAligner()
    for clip, frames in clips:
        check_clip(clip, frames)
        own = torch.arange(clip.queries.shape[1], device=clip.queries.device)
        yield clip, frames, own if by is None else aligner.step(getattr(clip, by)[0])


def check_clip(clip: ClipPrediction, frames: int) -> None:
    """Refuse what is no clip of one video with `frames` real frames."""
    videos, _, length = clip.mask_logits.shape[:3]
    if videos != 1 or not 1 <= frames <= length:
        raise ValueError(f"a clip of {videos} videos and {length} frames, {frames} of them real, cannot be part of "
                         "one video; give one video at a time and at least one real frame per clip")


@torch.no_grad()
def near_online(clips: Clips, *, merger: Merger, by: AlignBy = "mask_embeddings", official_compat: bool = False) -> Any:
    """Clip masks and the mean of the clips' class logits. Keeps nothing of a clip but class logits and maps of labels.

    official_compat: the public code lets repeated frames take part in merging, where they count as area;
    `panoptic_video` drops them afterwards.
    """
    class_logits = []                                                               # k of n classes+1
    for clip, frames, order in align(clips, by=by):
        masks = clip.mask_logits[0] if official_compat else clip.mask_logits[0, :, :frames]
        merger.add(masks[order])
        class_logits.append(clip.class_logits[0, order].float())
    if not class_logits:
        raise ValueError("the video has no clips, so there is nothing to segment")
    return merger.finish(torch.stack(class_logits).mean(0))


@torch.no_grad()
def offline(clips: Clips, head: CrossClipHead, *, merger: Merger, by: AlignBy = "mask_embeddings",
            spool: FeatureSpool | None = None) -> Any:
    """A cross-clip head over all clips at once. Pixel features wait in `spool` (default: in memory)."""
    spool = [] if spool is None else spool
    queries = collect_queries(clips, by=by, spool=spool)
    return merge_video(queries, spool, head, merger=merger)


@torch.no_grad()
def collect_queries(clips: Clips, *, by: AlignBy = "mask_embeddings",
                    spool: FeatureSpool | None = None) -> VideoQueries:
    """Align and stack what a cross-clip head reads, b = 1. What the query cache holds is made here too."""
    aligned = []
    for clip, frames, order in align(clips, by=by):
        aligned.append(tuple(part[:, order] for part in (clip.queries, clip.mask_embeddings, clip.class_logits)))
        if spool is not None:
            spool.append((clip.pixel_features[0], frames))
    if not aligned:
        raise ValueError("the video has no clips, so there are no queries to collect")
    queries, mask_embeddings, class_logits = (torch.stack(parts, dim=1) for parts in zip(*aligned))
    return VideoQueries(queries=queries, mask_embeddings=mask_embeddings, class_logits=class_logits)


@torch.no_grad()
def merge_video(queries: VideoQueries, features: Iterable[tuple[Tensor, int]], head: CrossClipHead, *,
                merger: Merger) -> Any:
    """queries: of one video. features: d t h w and the number of real frames, for every clip in time."""
    video = head(queries)[-1]
    for embeddings, (pixels, frames) in zip(video.mask_embeddings.unbind(1), features, strict=True):
        pixels = pixels[None, None, :, :frames].to(embeddings)                      # b k d t h w, b = k = 1
        merger.add(head.mask_logits(embeddings[:, None], pixels)[0, 0])
    return merger.finish(video.class_logits[0])


def panoptic_video(merged: MergedVideo, *, video_id: str, frame_names: tuple[str, ...]) -> PanopticVideo:
    """Give the result its names. Frames beyond the last name are repeats and are dropped."""
    if len(merged.frames) < len(frame_names):
        raise ValueError(f"video {video_id!r} has {len(frame_names)} frames but {len(merged.frames)} were segmented; "
                         "every frame must be part of a clip")
    return PanopticVideo(video_id=video_id, frame_names=tuple(frame_names), segments=merged.segments,
                         frames=merged.frames[:len(frame_names)])
