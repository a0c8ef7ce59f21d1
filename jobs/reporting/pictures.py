"""Pictures and short loops of a page, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from jobs.reporting.scenes import Scene
from model.contracts import PanopticVideo
from model.labels import ClassTable
from pipeline.clips import StoredVideoSource
from pipeline.shards import ShardSet
from pipeline.visualise.overlay import beside, overlay

SIDE = 300                      # pixels of the longer side of a picture
MOST_FRAMES = 24                # of a loop
FRAME_MILLISECONDS = 250
MOST_LOOP_BYTES = 450_000
QUALITIES = (75, 50, 25)        # of WebP, tried in this order until a loop is small enough


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A short moving picture, the still that stands for it where motion is unwanted, and its content in words."""

    title: str
    words: str
    moving: str         # data URIs
    still: str


def as_uri(picture: np.ndarray, *, quality: int = 75) -> str:
    """H W 3 uint8 -> a WebP picture."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=quality)
    return _uri(file.getvalue())


def loop_uri(frames: Sequence[np.ndarray]) -> str:
    """Frames of one size as an animated WebP of a bounded size: with a lower quality, then with fewer frames."""
    pictures = [Image.fromarray(frame) for frame in frames]
    step = 1
    while True:
        for quality in QUALITIES:
            file = io.BytesIO()
            chosen = pictures[::step]
            chosen[0].save(file, "WEBP", save_all=True, append_images=chosen[1:], loop=0, quality=quality,
                           duration=step * FRAME_MILLISECONDS)
            if file.tell() <= MOST_LOOP_BYTES or len(chosen) == 1:
                return _uri(file.getvalue())
        step *= 2


def loop_of(scene: Scene, shards: ShardSet, *, title: str) -> Loop:
    """Truth and prediction of a scene beside each other."""
    source = StoredVideoSource(shards, scene.stored)
    count = len(scene.stored.frames)
    chosen = sorted({round(place) for place in np.linspace(0, count - 1, min(count, MOST_FRAMES))})
    maps = zip(chosen_maps(scene.truth.frames, chosen), chosen_maps(scene.predicted.frames, chosen))
    pictures = []
    for index, (true_ids, ids) in zip(chosen, maps):
        frame = fitted(source.frames(index, index + 1)[0])
        panes = [overlay(frame, fitted(ids, nearest=True), video.segments, shards.classes)
                 for ids, video in ((true_ids, scene.truth), (ids, scene.predicted))]
        pictures.append(beside(panes))
    words = (f"{len(chosen)} of {count} frames of the video {scene.stored.video_id}. Left: the truth, "
             f"{things(scene.truth, shards.classes)}. Right: {scene.evaluation.title}, "
             f"{things(scene.predicted, shards.classes)}.")
    return Loop(title=title, words=words, moving=loop_uri(pictures), still=as_uri(pictures[len(pictures) // 2]))


def things(video: PanopticVideo, classes: ClassTable) -> str:
    """'disc 1, disc 2': the things of a video in words."""
    return ", ".join(name_of(segment.class_index, segment.track, classes) for segment in video.segments.values()
                     if segment.track) or "no things"


def name_of(class_index: int, track: int, classes: ClassTable) -> str:
    """'disc 1', as on an overlay."""
    name = classes.classes[class_index].name.replace("_", " ")
    return f"{name} {track}" if track else name


def chosen_maps(frames, chosen: Sequence[int]) -> list[np.ndarray]:
    """The maps of some frames, which are read in one pass."""
    wanted = set(chosen)
    return [ids for index, ids in enumerate(frames) if index in wanted]


def fitted(picture: np.ndarray, *, nearest: bool = False, side: int = SIDE) -> np.ndarray:
    """H W ... scaled so that its longer side has `side` pixels. nearest: for maps of ids, and for enlarging."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    method = cv2.INTER_NEAREST if nearest or scale > 1 else cv2.INTER_AREA
    return cv2.resize(picture, size, interpolation=method)


def _uri(content: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
