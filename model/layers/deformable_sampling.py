"""The samples of deformable attention, added up as weighted rows of a table.

One query and head read four pixels for each of their points, on every level. Every pixel of every level and head is a
row of a table, and the query and head are a bag of rows, each weighted with its bilinear times its attention weight.
`embedding_bag` adds up the bag without a tensor of all samples. The result equals `grid_sample` with zeros outside the
maps, weighted and summed over levels and points.

Letters here: b images, n queries, heads, d channels of one head; k = (heads levels points) are the samples of a query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

Shapes = Sequence[tuple[int, int]]    # height and width of each level

# Queries that are processed together. On a CPU the intermediates of a chunk stay in the cache; in the backward pass
# they hold the channels of the samples. On a GPU one launch covers many more.
_CHUNK_CPU = 1024
_CHUNK_CPU_BACKWARD = 256
_CHUNK_GPU = 1 << 18


def sample_deformable(value: Tensor, *, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples; pixels outside a map count as zero.

    value: b (levels h w) heads d. locations: b n heads levels points 2, (x, y) as fractions of the map, pixel centres
    at (i + 0.5) / size. weights: b n heads levels points. Returns b n (heads d) in the type of the value. Places,
    weights and sums are float32 or better, also where the value is in half precision.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    with torch.autocast(value.device.type, enabled=False):
        return _SumOfSamples.apply(value.to(dtype), locations.to(dtype), weights.to(dtype), shapes).to(value.dtype)


class _Axis(NamedTuple):
    """The two neighbouring pixels of each place along one axis. Every field: n k."""

    first: Tensor           # the first of the two pixels, as float
    beyond: Tensor          # the place minus the first pixel; between 0 and 1 except at the borders
    low: Tensor             # weight of the first pixel
    high: Tensor            # weight of the second


class _Grid:
    """The sizes of the maps, repeated for the k samples of a query."""

    def __init__(self, shapes: Shapes, *, heads: int, points: int, like: Tensor) -> None:
        height, width = torch.tensor(shapes).unbind(1)
        start = (height * width).cumsum(0) - height * width
        origin = start * heads + torch.arange(heads)[:, None]                             # heads levels
        columns = (repeat(one.expand(heads, -1), "heads levels -> (heads levels points)", points=points)
                   for one in (width, height, origin, heads * (width > 1), heads * width * (height > 1)))
        width, height, origin, right, below = (one.to(like.device) for one in columns)
        self.heads = heads
        self.width = width.to(like.dtype)
        self.height = height.to(like.dtype)
        self.row = (heads * width).int()                  # rows of the table that a line of the map takes
        self.origin = origin.int()                        # row of the first pixel of the map
        self.steps = [0 * right.int(), right.int(), below.int(), (right + below).int()]     # to the other corners

    def axes(self, locations: Tensor) -> tuple[_Axis, _Axis]:
        """locations: n k 2."""
        x, y = locations.unbind(-1)
        return _axis(x, self.width), _axis(y, self.height)

    def rows(self, x: _Axis, y: _Axis, image: Tensor) -> Tensor:
        """Rows of the upper left pixels, n k int32. image: n 1 int32, the first row of the query's image."""
        return (y.first.int() * self.row).add_(x.first.int() * self.heads).add_(self.origin).add_(image)


def _axis(fractions: Tensor, size: Tensor) -> _Axis:
    """fractions: n k, places as fractions of the map. size: k.

    Both pixels lie on the map, and the weight of a pixel is 1 minus its distance, but not below 0. This is also right
    outside the map. A map one pixel wide has no second pixel, as if it were infinitely far away.
    """
    places = (fractions * size).sub_(0.5)
    first = places.floor().nan_to_num_(0).clamp_(min=0).minimum((size - 2).clamp(min=0))
    beyond = places.sub_(first)
    second = torch.where(size > 1, 1.0, math.inf).to(size.dtype)
    low = beyond.abs().neg_().add_(1).clamp_(min=0)
    high = (beyond - second).abs_().neg_().add_(1).clamp_(min=0)
    return _Axis(first, beyond, low, high)


def _slopes(axis: _Axis, size: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the two weights by the fraction. At a pixel's centre it is that of the side to the right."""
    pixel = axis.beyond.floor()
    inside = (pixel == 0).to(size.dtype)
    low = ((pixel == -1).to(size.dtype) - inside) * size
    high = (inside - (pixel == 1).to(size.dtype)) * (size * (size > 1))
    return low, high


class _SumOfSamples(torch.autograd.Function):
    """`sample_deformable` in one type. It keeps its arguments alone and computes rows and weights twice."""

    @staticmethod
    def forward(ctx, value, locations, weights, shapes):
        b, n, heads, levels, points = weights.shape
        ctx.save_for_backward(value, locations, weights)
        ctx.shapes = shapes
        grid = _Grid(shapes, heads=heads, points=points, like=value)
        table = rearrange(value, "b pixels heads d -> (b pixels heads) d")
        sums = []
        for places, attention, image in _chunks(value, locations, weights, size=_CHUNK_CPU):
            x, y = grid.axes(places)
            row = grid.rows(x, y, image)
            rows = row.new_empty(*row.shape, 4)
            bilinear = attention.new_empty(*row.shape, 4)
            for corner, (step, weight) in enumerate(zip(grid.steps, _corner_weights(x, y, attention))):
                torch.add(row, step, out=rows[..., corner])
                bilinear[..., corner] = weight
            rows, bilinear = (one.view(-1, levels * points * 4) for one in (rows, bilinear))
            sums.append(F.embedding_bag(rows, table, mode="sum", per_sample_weights=bilinear))
        return rearrange(torch.cat(sums), "(b n heads) d -> b n (heads d)", b=b, n=n)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        value, locations, weights = ctx.saved_tensors
        b, n, heads, _, points = weights.shape
        grid = _Grid(ctx.shapes, heads=heads, points=points, like=value)
        table = rearrange(value, "b pixels heads d -> (b pixels heads) d")
        grad = rearrange(grad, "b n (heads d) -> (b n) heads 1 d", heads=heads)
        grad_weights = weights.new_empty(b * n, weights[0, 0].numel())
        grad_locations = weights.new_empty(*grad_weights.shape, 2)
        corner_weights = weights.new_empty(4, *grad_weights.shape)
        rows = torch.empty_like(grad_weights, dtype=torch.int32)
        start = 0
        for places, attention, image in _chunks(value, locations, weights, size=_CHUNK_CPU_BACKWARD):
            part = slice(start, start + len(places))
            start = part.stop
            x, y = grid.axes(places)
            rows[part] = grid.rows(x, y, image)
            corner_weights[:, part] = torch.stack(list(_corner_weights(x, y, attention)))
            dots = [_dots(table, rows[part] + step, grad[part]) for step in grid.steps]
            grad_weights[part] = _over_corners(dots, x[2:], y[2:])
            grad_locations[part, :, 0] = _over_corners(dots, _slopes(x, grid.width), y[2:]).mul_(attention)
            grad_locations[part, :, 1] = _over_corners(dots, x[2:], _slopes(y, grid.height)).mul_(attention)
        grad_value = _spread(grad.flatten(0, 2), rows, corner_weights, like=value, shapes=ctx.shapes)
        return grad_value, grad_locations.view_as(locations), grad_weights.view_as(weights), None


def _chunks(value: Tensor, locations: Tensor, weights: Tensor, *, size: int) -> Iterator[tuple[Tensor, ...]]:
    """Places n k 2, attention weights n k, and the first row of the image n 1, of some queries after the other."""
    queries = locations.shape[1]
    first = torch.arange(len(value), dtype=torch.int32, device=value.device) * value[0, :, :, 0].numel()
    image = repeat(first, "b -> (b n) 1", n=queries)
    size = size if value.device.type == "cpu" else _CHUNK_GPU
    return zip(locations.reshape(len(image), -1, 2).split(size), weights.reshape(len(image), -1).split(size),
               image.split(size))


def _corner_weights(x: _Axis, y: _Axis, attention: Tensor) -> Iterator[Tensor]:
    """Bilinear times attention weight of the corners, n k each, in the order of `_Grid.steps`."""
    for vertical in (y.low * attention, y.high * attention):
        yield vertical * x.low
        yield vertical * x.high


def _over_corners(dots: Sequence[Tensor], x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    """Sum over the four corners of a dot product times a factor along x and a factor along y; all n k."""
    upper = (dots[0] * x[0]).addcmul_(dots[1], x[1])
    lower = (dots[2] * x[0]).addcmul_(dots[3], x[1])
    return upper.mul_(y[0]).addcmul_(lower, y[1])


def _dots(table: Tensor, rows: Tensor, grad: Tensor) -> Tensor:
    """Dot products of rows of the table with the gradients of their bags. rows: n k. grad: n heads 1 d. Returns n k."""
    samples = table.index_select(0, rows.flatten()).view(len(rows), grad.shape[1], -1, table.shape[1])
    return samples.mul_(grad).sum(-1).flatten(1)


def _spread(grad: Tensor, rows: Tensor, weights: Tensor, *, like: Tensor, shapes: Shapes) -> Tensor:
    """Gradient of the value: what every row gets from the bags that read it, b (levels h w) heads d.

    grad: (b n heads) d. rows: (b n) k of the upper left corners. weights: 4 (b n) k of all corners. Every row is a bag
    of gradients: samples are sorted by their row once, and the sums of the other corners are moved to theirs.
    """
    heads = like.shape[2]
    ordered, order = rows.flatten().sort(stable=True)
    table = torch.arange(like[..., 0].numel(), dtype=torch.int32, device=like.device)
    starts = torch.searchsorted(ordered, table, out_int32=True)
    bags = (order // (rows.shape[1] // heads)).int()
    result = torch.zeros_like(like, memory_format=torch.contiguous_format)
    for corner, one in enumerate(weights.flatten(1)):
        sums = F.embedding_bag(bags, grad, starts, mode="sum", per_sample_weights=one[order]).view_as(result)
        start = 0
        for height, width in shapes:
            stop = start + height * width
            step = (corner % 2) * (width > 1) + (corner // 2) * width * (height > 1)
            result[:, start + step:stop] += sums[:, start:stop - step]
            start = stop
    return result
