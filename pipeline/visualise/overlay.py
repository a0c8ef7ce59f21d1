"""Results drawn over frames: colours, then outlines, then names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.contracts import VideoSegment
from model.labels import VOID, ClassTable
from pipeline.visualise.palette import paint, palette

SMALLEST_NAMED = 0.002    # of the picture; a name would hide a smaller segment
GAP = 4                   # pixels between pictures side by side


def overlay(frame: np.ndarray, ids: np.ndarray, segments: Mapping[int, VideoSegment], classes: ClassTable, *,
            alpha: float = 0.5, outlines: bool = True, names: bool = True) -> np.ndarray:
    """frame: H W 3 uint8 RGB; ids: H W panoptic ids -> H W 3 uint8, a new picture. Void shows the frame unchanged.

    alpha: 0 shows the frame only, 1 the colours only. Raises ValueError when frame and ids differ in size.
    """
    if frame.shape[:2] != ids.shape:
        raise ValueError(f"the frame is {frame.shape[0]}x{frame.shape[1]} (height x width), the ids {ids.shape[0]}x"
                         f"{ids.shape[1]}; resize the ids to the frame first")
    colors = paint(ids, palette(segments, classes))
    picture = cv2.addWeighted(frame, 1 - alpha, colors, alpha, 0)
    labelled = (ids != VOID)[..., None]
    np.copyto(picture, frame, where=~labelled)
    if outlines:
        np.copyto(picture, colors, where=edges(ids)[..., None] & labelled)
    return named(picture, ids, segments, classes) if names else picture


def edges(ids: np.ndarray) -> np.ndarray:
    """H W bool: pixels beside a pixel of another segment. Lines are 1/240 of the height wide, 2 pixels at least."""
    line = np.zeros(ids.shape, np.uint8)
    for here, there, below in ((line[:, 1:], ids[:, 1:], ids[:, :-1]), (line[1:], ids[1:], ids[:-1])):
        here |= there != below
    width = max(2, round(ids.shape[0] / 240))
    return cv2.dilate(line, np.ones((width, width), np.uint8)).view(bool)


def named(picture: np.ndarray, ids: np.ndarray, segments: Mapping[int, VideoSegment],
          classes: ClassTable) -> np.ndarray:
    """The picture with the name of each segment, its class and the track of a thing, where the segment is widest."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    font = _font(max(10, picture.shape[0] // 40))
    shrink = max(1, picture.shape[0] // 180)    # finds a good enough place much faster
    small = ids[::shrink, ::shrink]
    for panoptic, pixels in zip(*np.unique(small, return_counts=True)):
        if panoptic == VOID or pixels < SMALLEST_NAMED * small.size:
            continue
        segment = segments[int(panoptic)]
        name = classes.classes[segment.class_index].name
        text = (f"{name} {segment.track}" if segment.track else name).replace("_", " ")
        row, column = (shrink * place for place in _widest(small == panoptic))
        half = draw.textlength(text, font=font) / 2 + 2
        column = max(half, min(column, picture.shape[1] - half))     # inside the picture
        draw.text((column, row), text, font=font, fill="white", anchor="mm", stroke_width=2, stroke_fill="black")
    return np.asarray(canvas)


def beside(pictures: Sequence[np.ndarray], *, titles: Sequence[str] = ()) -> np.ndarray:
    """Pictures of equal height in a row (frame | truth | prediction), each under its title if titles are given.

    Raises ValueError for pictures of different heights.
    """
    heights = {picture.shape[0] for picture in pictures}
    if len(heights) != 1:
        raise ValueError(f"pictures side by side need one height, got {sorted(heights)} pixels")
    gap = np.full((heights.pop(), GAP, 3), 255, np.uint8)
    row = np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)
    if not titles:
        return row
    size = max(10, row.shape[0] // 30)
    canvas = Image.fromarray(np.concatenate([np.full((2 * size, row.shape[1], 3), 255, np.uint8), row]))
    left = 0
    for picture, title in zip(pictures, titles):
        ImageDraw.Draw(canvas).text((left + picture.shape[1] // 2, size), title, font=_font(size), fill="black",
                                    anchor="mm")
        left += picture.shape[1] + GAP
    return np.asarray(canvas)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _widest(mask: np.ndarray) -> tuple[int, int]:
    """Row and column of the pixel farthest from the border of a mask; the border of the picture counts too."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(row) - 1, int(column) - 1
