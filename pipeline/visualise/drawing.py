"""A result over its frames, as an overlay video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.contracts import PanopticVideo
from model.labels import ClassTable
from pipeline.clips import VideoSource
from pipeline.visualise.overlay import beside, overlay
from pipeline.visualise.video_writer import VideoWriter


def draw(source: VideoSource, predicted: PanopticVideo, classes: ClassTable, folder: Path, *,
         truth: PanopticVideo | None = None, times: Sequence[float] | None = None) -> Path:
    """Write an overlay video: the prediction over the frames, beside frame and truth when there is a truth.

    times: seconds of each frame, where the source has them; otherwise six frames a second, as in VIPSeg and
    YouTube-VIS. Frames of less than 320 lines are enlarged, because the names would cover them.
    """
    path = folder / f"{predicted.video_id}.mp4"
    scale = max(1, 320 // source.size[0])
    videos = [video for video in (truth, predicted) if video is not None]
    with VideoWriter(path, fps=6.0) as writer:
        for index, maps in enumerate(zip(*(video.frames for video in videos))):
            frame = enlarged(source.frames(index, index + 1)[0], scale)
            pictures = [overlay(frame, enlarged(ids, scale), video.segments, classes)
                        for ids, video in zip(maps, videos)]
            writer.write(beside([frame, *pictures]) if truth is not None else pictures[0],
                         time=times[index] - times[0] if times else None)
    return path


def enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    """H W ... -> (scale H) (scale W) ...: every pixel becomes a square."""
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)
