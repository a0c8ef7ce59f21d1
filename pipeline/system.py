"""A frozen segmenter, with or without a cross-clip head, over videos: the same steps for caching, scoring, predicting.

    system = jobs.models.load_system("runs/demo")
    results = system.predict("my_video.mp4")          # VideoResults: panoptic, tracks, semantic
    for part in system.stream(frames): ...            # near-online, clip by clip, as frames arrive
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from model.association.linker import MatchingSpace
from model.contracts import ClipPrediction, ClipTargets, Geometry, VideoResults
from model.families import family_of, refuse_unfit_results
from model.inference import (
    FeatureSpool,
    FixedCanvas,
    InferenceConfig,
    LinkedPanoptic,
    ResizeConfig,
    ResultMaker,
    make_results,
    result_makers,
    with_places,
)
from model.inference.makers import shared_frames
from model.inference.oracle import in_true_order
from model.labels import ClassTable
from model.postprocess.instances import tracks_video
from model.postprocess.panoptic import panoptic_video
from model.postprocess.semantic import semantic_video
from model.precision import autocast
from pipeline.clips import VideoClip, VideoSource, ahead, streamed_clips, video_clips
from pipeline.datasets.raw_video import open_video
from pipeline.progress import Watch
from pipeline.spool import TensorSpool

if TYPE_CHECKING:
    from model.association.links import LinkNetwork
    from model.cross_clip import CrossClipHead

log = logging.getLogger(__name__)


class NetworkInput(Protocol):
    """A clip, whatever else is known of it."""

    @property
    def frames(self) -> Tensor:
        """1 t 3 H W uint8 RGB."""

    @property
    def real_pixels(self) -> Tensor:
        """1 t H W bool, false in padding."""


C = TypeVar("C", bound=NetworkInput)


@dataclass(kw_only=True)
class System:
    """Turns a video into results. Raises ValueError where segmenter, head and inference do not fit together."""

    segmenter: nn.Module
    head: nn.Module | None          # with it, results are made offline
    classes: ClassTable
    inference: InferenceConfig
    clip_frames: int                # of training; `inference.clip_frames` comes first
    size: tuple[int, int] | None    # network input of training, pixels; None: a canvas of its own for each batch
    made_by: Mapping[str, Any]      # for the record
    links: nn.Module | None = None  # `LinkNetwork`, for inference.association=links

    def __post_init__(self) -> None:
        refuse_unfit_results(self.inference, self.segmenter.config, offline=self.head is not None,
                             clip_frames=self.clip_frames)
        if self.size is None and self.inference.resize is None:
            raise ValueError("the model was trained without a fixed network input, so none can be used at test time; "
                             "set inference.resize, such as '{\"short_side\": 360}'")
        if self.inference.association.kind == "links" and self.links is None:
            raise ValueError("inference.association=links reorders queries by learned links, and the system has none; "
                             "give it links, or set inference.association=hungarian")
        if self.head is not None and self.inference.head is not None:
            self.head.config = self.inference.head.applied_to(self.head.config)

    @property
    def resize(self) -> FixedCanvas | ResizeConfig:
        """How frames enter the segmenter."""
        size: Any = self.size       # `__post_init__` refused a system without either
        return self.inference.resize or FixedCanvas(size=size, enlarge=self.inference.enlarge)

    def predict(self, video: VideoSource | Path | str, *,
                clips: Iterable[tuple[VideoClip, ClipPrediction]] | None = None, matching: MatchingSpace | None = None,
                watch: Watch | None = None, truth_of: Callable[[VideoClip], ClipTargets] | None = None
                ) -> VideoResults:
        """Segment and track one video, clip by clip; memory does not grow with its pixels.

        video: a source of frames, a video file, or a folder of frames. clips: those of the video with their
        predictions, where it is walked together with others. matching: counts the comparisons that linking
        the segments of clips took. watch: notes the place in the video. truth_of: the true tubes of a clip, which then
        decide the order of its queries (`model.inference.oracle`): a reference for scores, no result. Raises BadInput
        for a video that cannot be read.
        """
        source = open_video(video) if isinstance(video, Path | str) else video
        if isinstance(video, Path | str) and (left_out := getattr(source, "left_out", "")):
            log.warning(left_out)
        if clips is None:
            clips = self.predictions_of(self.clips(source), places=self.reads_places)
        total = len(source.frame_names)
        noted = None
        if watch is not None:
            overlap = shared_frames(self.inference)
            clips = watch.over("segmenting", clips, total, frames=lambda pair: max(pair[0].valid - overlap, 1))
            noted = partial(watch.at, "merging", total=total)
        if truth_of is not None:
            clips = in_true_order(clips, truth_of, compete=family_of(self.segmenter.config).masks_compete)
        geometry = self.resize.geometry(source.size)
        with closing(TensorSpool(noted=noted)) if self.waits else nullcontext() as spool:
            makers = self.makers(geometry, spool, head=self.head)
            results = make_results(((prediction, clip.valid) for clip, prediction in clips), makers,
                                num_classes=len(self.classes))
        for maker in makers:
            if matching is not None and isinstance(maker, LinkedPanoptic):
                matching.merge(maker.linker.matching)
        return named(results, video_id=source.video_id, frame_names=tuple(source.frame_names), size=source.size)

    def stream(self, frames: Iterable[np.ndarray], *, video_id: str = "stream") -> Iterator[VideoResults]:
        """Yield near-online results of each clip as soon as its frames are there, over a stream that may never end.

        frames: H W 3 uint8 RGB, all of one size. An object keeps its panoptic id (for tracks: its `query`) from result
        to result. Frames are named by their position in the stream. A cross-clip head, which needs all clips, is not
        used; learned links decide clip by clip. Raises ValueError for a frame of another size.
        """
        refuse_unfit_results(self.inference, self.segmenter.config, offline=False, clip_frames=self.clip_frames)
        overlap = shared_frames(self.inference)
        makers: list[ResultMaker] = []
        for clip in streamed_clips(frames, self.clip_length, self.resize, overlap=overlap):
            makers = makers or self.makers(clip.geometry, None, head=None, endless=True)
            prediction = self.predict_clip(clip.frames, clip.real_pixels, places=self.reads_places)
            results = make_results([(prediction, clip.valid)], makers, num_classes=len(self.classes))
            new = clip.indices[overlap if clip.indices[0] else 0:clip.valid]
            yield named(results, video_id=video_id, frame_names=tuple(f"{frame:06d}" for frame in new),
                         size=clip.geometry.source)

    @property
    def shortens(self) -> bool:
        """Whether clips at the end of a video are shorter; a cross-clip head needs full ones."""
        return self.inference.last_clip == "shorten" and self.head is None

    @property
    def reads_places(self) -> bool:
        """Whether links or the head read where masks lie and what they cover."""
        config: Any = None if self.head is None else self.head.config
        columns = () if config is None else config.reads.columns
        return self.links is not None or not {"places", "looks"}.isdisjoint(columns)

    @property
    def waits(self) -> bool:
        """Whether something large of each clip waits for the end of the video: a head, or an order over all clips."""
        association = self.inference.association
        return self.head is not None or (association.kind == "links" and not association.streaming)

    @property
    def clip_length(self) -> int:
        """Frames of a clip at test time."""
        return self.inference.clip_frames or self.clip_frames

    def clips(self, source: VideoSource) -> Iterator[VideoClip]:
        """The clips of a video, from which `predict` makes its results."""
        return video_clips(source, self.clip_length, self.resize, overlap=shared_frames(self.inference),
                           shorten=self.shortens)

    def clip_predictions(self, source: VideoSource, *, overlap: int = 0,
                         shorten: bool = False, places: bool = False) -> Iterator[tuple[VideoClip, ClipPrediction]]:
        """The segmenter on each clip, in order, as `video_clips` cuts them. places: see `predict_clip`."""
        clips = video_clips(source, self.clip_length, self.resize, overlap=overlap, shorten=shorten)
        return self.predictions_of(clips, places=places)

    def predictions_of(self, clips: Iterable[C], *, places: bool = False
                       ) -> Generator[tuple[C, ClipPrediction], None, None]:
        """The segmenter on clips of any videos, in order. Up to `inference.clips_together` neighbours pass at once.

        The next clips are read and decoded while the segmenter works. places: see `predict_clip`.
        """
        with closing(ahead(clips, count=self.inference.clips_together)) as ready:
            for together in _batches(ready, self.inference.clips_together):
                frames = torch.cat([clip.frames for clip in together])
                real_pixels = torch.cat([clip.real_pixels for clip in together])
                yield from zip(together, apart(self.predict_clip(frames, real_pixels, places=places)))

    def predict_clip(self, frames: Tensor, real_pixels: Tensor, *, places: bool = False) -> ClipPrediction:
        """The segmenter on one clip, or several at once. frames: b t 3 H W uint8 RGB, real_pixels: b t H W bool.

        places: with the `places` and `looks` of its queries, which only learned links and the query cache read.
        """
        device = next(self.segmenter.parameters()).device
        with torch.inference_mode():
            frames = frames.to(device)
            real_pixels = real_pixels.to(device)
            with autocast(device, self.inference.precision):
                prediction = self.segmenter(frames, real_pixels)
            prediction = in_single_precision(prediction)
            if not places:
                return prediction
            compete = family_of(self.segmenter.config).masks_compete
            return with_places(prediction, frames, real_pixels, compete=compete)

    def makers(self, geometry: Geometry, spool: FeatureSpool | None, *, head: nn.Module | None,
               endless: bool = False) -> list[ResultMaker]:
        """The result makers of one video. spool: where pixel features wait for the head, which may be None, or masks
        for their order. endless: every clip has to be decided when it comes."""
        inference = self.inference
        if endless and inference.association.kind == "links":
            inference = replace(inference, association=replace(inference.association, streaming=True))
        return result_makers(inference, segmenter=self.segmenter, head=cast("CrossClipHead | None", head),
                             links=cast("LinkNetwork | None", self.links), spool=spool,
                             is_thing=self.classes.is_thing, geometry=geometry)


def _batches(clips: Iterable[C], count: int) -> Iterator[list[C]]:
    """Up to `count` neighbours at a time, which have equally many frames."""
    for _, alike in groupby(clips, key=lambda clip: clip.frames.shape):
        while together := list(islice(alike, count)):
            yield together


def apart(prediction: ClipPrediction) -> Iterator[ClipPrediction]:
    """The predictions of the clips of a batch, each as a batch of one."""
    values = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    for clip in range(len(prediction.class_logits)):
        parts: dict[str, Any] = {name: value[clip:clip + 1] for name, value in tensors.items()}
        yield replace(prediction, **parts)


def in_single_precision(prediction: ClipPrediction) -> ClipPrediction:
    """The same prediction in float32, whatever the segmenter computed in."""
    values = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    floats: dict[str, Any] = {name: value.float() for name, value in values.items() if isinstance(value, Tensor)}
    return replace(prediction, **floats)


def named(results: Mapping[str, Any], *, video_id: str, frame_names: tuple[str, ...],
          size: tuple[int, int]) -> VideoResults:
    """The results of a video under its name. size: height and width of the source frames, pixels."""
    finish: dict[str, Callable[..., Any]] = {
        "panoptic": panoptic_video, "tracks": partial(tracks_video, size=size), "semantic": semantic_video}
    return VideoResults(**{result: finish[result](value, video_id=video_id, frame_names=frame_names)
                           for result, value in results.items()})
