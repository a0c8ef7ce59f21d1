"""Masks of instance data sets as compressed run lengths, read from any form that people's tools write."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipeline.datasets.json_entries import shown, whole_number

SMALLEST_POLYGON = 6    # numbers: x and y of three corners


def packed_mask(mask: Any, *, height: int, width: int) -> dict | None:
    """Compressed run lengths (size, counts as bytes) of a mask given as run lengths or as polygons.

    None if the object is absent or covers no pixel. Polygons are lists of numbers x, y, x, y, ... or of pairs, one or
    several; those with fewer than three corners cover nothing. Memory is bounded by the frame and the length of `mask`.
    Raises ValueError, in words for people, for anything else, and for a mask that does not fit the frame.
    """
    if mask is None or mask in ([], {}):
        return None
    if isinstance(mask, list):
        packed = _packed_polygons(mask, height, width)
    elif isinstance(mask, dict):
        packed = _packed_runs(mask, height, width)
    else:
        raise ValueError(f"the mask is {shown(mask)}; it must be polygons or run lengths.")
    return packed


def _packed_polygons(mask: list, height: int, width: int) -> dict | None:
    polygons = [_inside(corners, height, width) for corners in _polygons(mask)]
    polygons = [corners for corners in polygons if len(corners) >= SMALLEST_POLYGON]
    if not polygons:
        return None
    packed = {"size": [height, width], "counts": coco.merge(coco.frPyObjects(polygons, height, width))["counts"]}
    return packed if coco.area(packed) else None


def _polygons(mask: list) -> list[list[float]]:
    """The corners of every polygon as a flat list. Raises ValueError for anything but polygons."""
    if not isinstance(mask[0], list):
        return [_corners(mask)]
    if all(isinstance(part, list) and len(part) == 2 and not isinstance(part[0], list) for part in mask):
        return [_corners([number for pair in mask for number in pair])]
    polygons = []
    for part in mask:
        if not isinstance(part, list):
            raise ValueError(f"one of {len(mask)} polygons is {shown(part)}; it must be a list of numbers.")
        is_pairs = part and all(isinstance(pair, list) and len(pair) == 2 for pair in part)
        polygons.append(_corners([number for pair in part for number in pair] if is_pairs else part))
    return polygons


def _corners(numbers: list) -> list[float]:
    if not set(map(type, numbers)) <= {int, float} or not all(map(_is_near, numbers)):
        wrong = next(number for number in numbers if type(number) not in (int, float) or not _is_near(number))
        raise ValueError(f"a corner of the polygon is {shown(wrong)}; corners must be finite numbers of pixels.")
    if len(numbers) % 2:
        raise ValueError(f"the polygon has {len(numbers)} numbers; it needs x and y of every corner.")
    return [float(number) for number in numbers]


def _is_near(number: float) -> bool:
    """Whether a coordinate is finite and its square fits a float; NaN compares false."""
    return -1e15 < number < 1e15


def _inside(corners: list[float], height: int, width: int) -> list[float]:
    """The polygon cut at one frame size outside of the frame, if it reaches further; pixels of the frame stay.

    COCO's code steps along every edge, so a corner far outside would take all memory.
    """
    points = np.reshape(corners, (-1, 2))
    lowest = np.array([-width, -height], float)
    highest = np.array([2 * width, 2 * height], float)
    if ((points >= lowest) & (points <= highest)).all():
        return corners
    for axis in (0, 1):
        points = _cut(points, axis, lowest[axis], above=True)
        points = _cut(points, axis, highest[axis], above=False)
    return points.ravel().tolist()


def _cut(points: np.ndarray, axis: int, border: float, *, above: bool) -> np.ndarray:
    """The part of a polygon, n 2, on one side of a line (Sutherland and Hodgman)."""
    kept = []
    for start, end in zip(np.roll(points, 1, axis=0), points):
        start_in, end_in = ((point[axis] >= border) == above or point[axis] == border for point in (start, end))
        if start_in != end_in:
            crossing = start + (end - start) * (border - start[axis]) / (end[axis] - start[axis])
            crossing[axis] = border
            kept.append(crossing)
        if end_in:
            kept.append(end)
    return np.reshape(kept, (-1, 2))


def _packed_runs(mask: dict, height: int, width: int) -> dict | None:
    if "size" not in mask or "counts" not in mask:
        raise ValueError(f"the mask has the fields {shown(sorted(map(str, mask)))}; run lengths need size and counts.")
    size = mask["size"]
    if not isinstance(size, list) or [whole_number(side) for side in size] != [height, width]:
        told = f"[{', '.join(map(shown, size))}]" if isinstance(size, list) and len(size) == 2 else shown(size)
        raise ValueError(f"the mask has the size {told} (height, width), the frame has [{height}, {width}].")
    counts = mask["counts"]
    pixels = height * width
    if isinstance(counts, str):
        runs = runs_of(counts)
        if runs is None or runs.sum() != pixels:
            described = "cannot be read" if runs is None else f"sum to {runs.sum()} pixels"
            raise ValueError(f"the compressed run lengths {described}; a frame has {pixels}.")
        return {"size": [height, width], "counts": counts.encode()} if runs[1::2].any() else None
    if not isinstance(counts, list):
        raise ValueError(f"the run lengths are {shown(counts)}; they must be a list or a text.")
    runs = counts if set(map(type, counts)) <= {int} else [whole_number(count) for count in counts]
    if None in runs:
        raise ValueError(f"one of the run lengths is {shown(counts[runs.index(None)])}; it must be a whole number.")
    if sum(runs) != pixels or min(runs) < 0:
        raise ValueError(f"the run lengths sum to {sum(runs)} pixels, and the smallest is {min(runs, default=0)}; a "
                         f"frame has {pixels}.")
    if not any(runs[1::2]):
        return None
    packed = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": packed["counts"]}


def runs_of(counts: str) -> np.ndarray | None:
    """Pixels of every run in compressed run lengths, background first; None if `counts` cannot be decoded.

    The coding is that of COCO's C library: a character holds five bits of a number, lowest bits first, and its sixth
    bit is set if more characters follow. From the fourth number on, a number is stored as its difference from the
    number two before it.
    """
    if not counts.isascii():
        return None
    codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(~codes & 32)                                          # last character of each number
    starts = np.concatenate([[0], ends[:-1] + 1])
    offsets = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)      # of each character in its number
    if offsets.max() > 6:                                                       # no picture has 2^34 pixels
        return None
    runs = np.add.reduceat((codes & 31) << 5 * offsets, starts)
    runs -= (codes[ends] >> 4 & 1) << 5 * (ends - starts + 1)                   # the sign
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return None if runs.min() < 0 else runs
