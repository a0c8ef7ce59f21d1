"""A result over its frames, as an overlay video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from model.contracts import PanopticVideo
from model.labels import ClassTable
from pipeline.clips import VideoSource
from pipeline.file_names import name_for
from pipeline.files import atomic_write
from pipeline.images import encode_png
from pipeline.progress import Watch
from pipeline.visualise.overlay import beside, overlay
from pipeline.visualise.video_writer import VideoWriter

LOWEST = 320        # lines of a picture; smaller frames are enlarged
LARGEST = 1920      # columns of an enlarged picture


def draw(source: VideoSource, predicted: PanopticVideo | Mapping[str, PanopticVideo], classes: ClassTable, folder: Path,
         *, truth: PanopticVideo | None = None, times: Sequence[float] | None = None, still: bool = False,
         watch: Watch | None = None) -> Path:
    """Write an overlay video: the prediction over the frames, beside frame and truth when there is a truth.

    predicted: one result, or several of the same video by title, which are drawn beside each other.
    times: seconds of each frame, where the source has them; otherwise six frames a second, as in VIPSeg and
    YouTube-VIS. still: write a picture of the only frame instead. watch: notes the place in the video.
    """
    first = next(iter(by_title(predicted).values()))
    pictures = overlays(source, predicted, classes, truth=truth)
    if watch is not None:
        pictures = watch.over("drawing", pictures, len(first.frame_names))
    if still:
        path = folder / f"{name_for(first.video_id)}.png"
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(path, encode_png(next(pictures)))
        return path
    path = folder / f"{name_for(first.video_id)}.mp4"
    with VideoWriter(path, fps=6.0) as writer:
        for index, picture in enumerate(pictures):
            writer.write(picture, time=times[index] - times[0] if times else None)
    return path


def readable_scale(height: int, width: int) -> int:
    """How often the pixels of a small frame are repeated, so that names do not cover it."""
    return max(1, min(LOWEST // height, LARGEST // width))


def by_title(predicted: PanopticVideo | Mapping[str, PanopticVideo]) -> Mapping[str, PanopticVideo]:
    """The results that are drawn, each under its title."""
    return {"prediction": predicted} if isinstance(predicted, PanopticVideo) else predicted


def overlays(source: VideoSource, predicted: PanopticVideo | Mapping[str, PanopticVideo], classes: ClassTable, *,
             truth: PanopticVideo | None = None) -> Iterator[np.ndarray]:
    """The pictures of `draw`. Small frames are enlarged to about 320 lines or columns: names would cover them."""
    scale = readable_scale(*source.size)
    versions = by_title(predicted)
    videos = [*([] if truth is None else [truth]), *versions.values()]
    titles = ("frame", *([] if truth is None else ["truth"]), *versions)
    for index, maps in enumerate(zip(*(video.frames for video in videos))):
        frame = enlarged(source.frames(index, index + 1)[0], scale)
        panes = [overlay(frame, enlarged(ids, scale), video.segments, classes) for ids, video in zip(maps, videos)]
        yield panes[0] if len(panes) == 1 else beside([frame, *panes], titles=titles)


def enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    """H W ... -> (scale H) (scale W) ...: every pixel becomes a square."""
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)
