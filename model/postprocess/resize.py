"""Resize mask logits from stride 4 to the pixels of the source frame, the whole frame or any tile of it.

The official code (TACJu/MaXTron, `video_seg_post_processing`) does this in a chain: it resizes to the padded network
input, crops the padding and, if the frame was scaled, resizes to the source size. The steps are linear and treat rows
and columns separately, so the chain is one matrix for rows and one for columns: `rows @ masks @ columns.T`. A tile of
the result needs only the few rows and columns that have a weight in it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from model.contracts import Geometry
from model.layers.resize import is_odd

TAPS = 4        # map pixels along an axis that have a weight in one pixel of the result, at most


def axis_weights(length: int, *, padded: int, resized: int, source: int, align_corners: bool, scaled: bool) -> Tensor:
    """The whole chain along one axis as a matrix `source length`; an output pixel is a weighted mean of map pixels."""
    grid = torch.eye(length, dtype=torch.float64)[None]
    weights = F.interpolate(grid, size=padded, mode="linear", align_corners=align_corners)[..., :resized]
    if scaled:
        weights = F.interpolate(weights, size=source, mode="linear", align_corners=align_corners)
    return weights[0].T.float()


class MaskResizer:
    """Maps `... h w` (mask logits at stride 4 of the padded input) to `... H W` (pixels of the source frame).

    size: h and w of the maps. Corners are aligned exactly when the padded width is odd, as in the public code, unless
    `align_corners` says otherwise. Maps that have the size of the source frame already are left as they are.
    """

    def __init__(self, geometry: Geometry, *, size: tuple[int, int], align_corners: bool | None = None,
                 device: torch.device | str = "cpu") -> None:
        scaled = geometry.resized != geometry.source
        if any(part > whole for part, whole in zip(geometry.resized, geometry.padded)):
            raise ValueError(f"a frame resized to {geometry.resized} does not lie inside the network input "
                             f"{geometry.padded}; make the geometry with Geometry.fit")
        if align_corners is None:
            align_corners = is_odd(geometry.padded[1])
        self.size = size
        self.output = geometry.source
        self.keeps = geometry.source == geometry.resized == geometry.padded == tuple(size)
        if self.keeps:      # a map of sampled pixels may be so long that a matrix of its width does not fit into memory
            return
        self.rows, self.columns = (
            axis_weights(size[axis], padded=geometry.padded[axis], resized=geometry.resized[axis], scaled=scaled,
                         source=geometry.source[axis], align_corners=align_corners).to(device)
            for axis in (0, 1))                                                     # H h, W w
        self._row_taps = _taps(self.rows)
        self._column_taps = _taps(self.columns)

    def tiles(self, *, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        """The output cut into tiles of at most height times width pixels, longer ones where it is lower than a tile."""
        width = height * width // min(height, self.output[0])
        for top in range(0, self.output[0], height):
            for left in range(0, self.output[1], width):
                yield (slice(top, min(top + height, self.output[0])), slice(left, min(left + width, self.output[1])))

    def tile(self, masks: Tensor, *, rows: slice, columns: slice) -> Tensor:
        """masks: ... h w -> the given rows and columns of the resized maps, from only the pixels that they need."""
        if self.keeps:
            return masks[..., rows, columns]
        high = _touched(self._row_taps, rows)
        wide = _touched(self._column_taps, columns)
        return self.rows[rows, high] @ (masks[..., high, wide] @ self.columns[columns, wide].T)

    def at(self, maps: Tensor, frames: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """maps: d t h w -> d p: the resized maps at single pixels. frames, rows, columns: p each."""
        row_weights, row_taps = self.rows[rows].topk(min(TAPS, self.size[0]))               # p i
        column_weights, column_taps = self.columns[columns].topk(min(TAPS, self.size[1]))   # p j
        taps = maps[:, frames[:, None, None], row_taps[:, :, None], column_taps[:, None]]   # d p i j
        return torch.einsum("dpij,pi,pj->dp", taps, row_weights, column_weights)

    def reached(self, *, rows: slice, columns: slice) -> tuple[slice, slice]:
        """The output rows and columns to which these rows and columns of a map contribute."""
        if self.keeps:
            return rows, columns
        return _reached(self._row_taps, rows), _reached(self._column_taps, columns)

    def __call__(self, masks: Tensor) -> Tensor:
        """masks: ... h w -> ... H W."""
        if tuple(masks.shape[-2:]) != self.size:
            raise ValueError(f"maps of {tuple(masks.shape[-2:])} were given to a resizer made for {self.size}; "
                             f"make one with size={tuple(masks.shape[-2:])}")
        resized = masks.new_empty(*masks.shape[:-2], *self.output)
        for rows, columns in self.tiles(height=64, width=128):
            resized[..., rows, columns] = self.tile(masks, rows=rows, columns=columns)
        return resized


def _taps(weights: Tensor) -> tuple[list[int], list[int]]:
    """For every output pixel the first map pixel with a weight, and the pixel after the last one."""
    used = weights != 0
    first = used.int().argmax(1)
    last = used.shape[1] - used.flip(1).int().argmax(1)
    return first.tolist(), last.tolist()


def _reached(taps: tuple[list[int], list[int]], inputs: slice) -> slice:
    return slice(bisect_right(taps[1], inputs.start), bisect_left(taps[0], inputs.stop))     # both are sorted


def _touched(taps: tuple[list[int], list[int]], outputs: slice) -> slice:
    return slice(min(taps[0][outputs]), max(taps[1][outputs]))
