"""The axial trajectory of a point through a clip: where it is found along its column, along its row, and in both.

MaXTron, arXiv 2311.18537v1, section 3.2 and figures 1 and 9 to 12. A point attends to its column in every frame (the
height pass), then to its row in every frame (the width pass). Their product is the joined track: it leaves the row and
the column of the point, but it can follow an object only as long as this still meets both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from einops import einsum
from torch import Tensor

from model.contracts import Geometry

_MAP = re.compile(r"stride(\d+)\.(height|space)")
MARK = 3                # radius of a mark, pixels of a small frame
SIDE = 240              # pixels of the longer side of a drawn frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """The attention of one point to the cells of a map in every frame; each sums to one over the cells of a frame."""

    height: Tensor | None   # t h     along the column of the point; None: all cells at once ("full" attention)
    width: Tensor | None    # t w     along its row
    joined: Tensor          # t h w
    frame: int              # of the point, in the clip
    geometry: Geometry      # of a frame

    def points(self) -> list[tuple[float, float]]:
        """The mean place of the joined track in each frame: x, y in pixels of the source."""
        _, rows, columns = self.joined.shape
        total = self.joined.sum((1, 2))
        y = (self.joined.sum(2) @ (torch.arange(rows) + 0.5)) / total * self.geometry.padded[0] / rows
        x = (self.joined.sum(1) @ (torch.arange(columns) + 0.5)) / total * self.geometry.padded[1] / columns
        scale = [source / resized for source, resized in zip(self.geometry.source, self.geometry.resized)]
        return list(zip((x * scale[1]).tolist(), (y * scale[0]).tolist()))


def strides_of(maps: Mapping[str, Tensor]) -> list[int]:
    """The strides at which frames attend to each other, finest first."""
    return sorted({int(found[1]) for name in maps if (found := _MAP.fullmatch(name))})


def track_of(maps: Mapping[str, Tensor], *, stride: int, point: tuple[float, float], frame: int, geometry: Geometry
             ) -> Track:
    """maps: the dict that a segmenter filled for one clip, b = 1. point: x, y in pixels of the source; frame: of the
    clip. The heads of the attention are averaged. Raises ValueError for a point outside the frame."""
    height, width = geometry.source
    x, y = point
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"the point {x:g},{y:g} is outside the frame of {width}x{height} pixels (x,y from 0,0)")
    inside = [value * resized / source / padded for value, resized, source, padded in
              zip((y, x), geometry.resized, geometry.source, geometry.padded)]             # 0 to 1
    if f"stride{stride}.space" in maps:
        attention = maps[f"stride{stride}.space"].mean(1)[0].float()                    # (t h w) t (h w)
        rows, columns = (-(-side // stride) for side in geometry.padded)
        row = int(inside[0] * rows)
        column = int(inside[1] * columns)
        joined = attention[(frame * rows + row) * columns + column].unflatten(1, (rows, columns))
        return Track(height=None, width=None, joined=joined, frame=frame, geometry=geometry)
    in_columns = maps[f"stride{stride}.height"].mean(1).float()                         # w (t h) t h
    in_rows = maps[f"stride{stride}.width"].mean(1).float()                             # h (t w) t w
    rows = len(in_rows)
    columns = len(in_columns)
    row = int(inside[0] * rows)
    column = int(inside[1] * columns)
    along_height = in_columns[column, frame * rows + row]                               # t h
    along_width = in_rows[row, frame * columns + column]                                # t w
    return Track(height=along_height, width=along_width, frame=frame, geometry=geometry,
                 joined=einsum(along_height, along_width, "t h, t w -> t h w"))


def drawn_track(track: Track, frames: Sequence[np.ndarray], point: tuple[float, float]) -> np.ndarray:
    """H W 3 uint8: the frames of the clip in a row, and below them height pass, width pass and joined track.

    frames: t of H W 3 uint8 RGB of the source. The point has a white mark, the mean place of the track a black one.
    """
    t, rows, columns = track.joined.shape
    passes = [track.joined]
    if track.height is not None:
        passes = [track.height[:, :, None].expand(t, rows, columns), track.width[:, None].expand(t, rows, columns),
                  track.joined]
    small = [_small(frame) for frame in frames]
    scale = small[0].shape[0] / frames[0].shape[0]
    lines = [[*small], *([_heated(frame, heat, track.geometry) for frame, heat in zip(small, maps)] for maps in passes)]
    for place, (x, y) in enumerate(track.points()):
        _mark(lines[-1][place], (x * scale, y * scale), (0, 0, 0))
    for line in lines:
        _mark(line[track.frame], (point[0] * scale, point[1] * scale), (255, 255, 255))
    return np.concatenate([np.concatenate(line, axis=1) for line in lines])


def _heated(frame: np.ndarray, heat: Tensor, geometry: Geometry) -> np.ndarray:
    """A frame under the colours of a map h w over the whole network input, of which the frame is a part."""
    values = (heat / heat.max().clamp(min=1e-9)).numpy()
    over_input = cv2.resize(values, geometry.padded[::-1], interpolation=cv2.INTER_NEAREST)
    over_frame = over_input[:geometry.resized[0], :geometry.resized[1]]
    over_frame = cv2.resize(over_frame, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colors = cv2.applyColorMap((255 * over_frame).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return cv2.addWeighted(frame, 0.45, np.ascontiguousarray(colors), 0.55, 0)


def _small(frame: np.ndarray) -> np.ndarray:
    scale = SIDE / max(frame.shape[:2])
    size = (max(1, round(scale * frame.shape[1])), max(1, round(scale * frame.shape[0])))
    return cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)


def _mark(picture: np.ndarray, place: tuple[float, float], color: tuple[int, int, int]) -> None:
    center = tuple(round(value) for value in place)
    cv2.circle(picture, center, MARK + 1, tuple(255 - value for value in color), -1)
    cv2.circle(picture, center, MARK, color, -1)
