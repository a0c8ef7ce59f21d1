"""Masks of instance data sets as run lengths, read from any form that people's tools write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from operator import countOf
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipeline.datasets.json_entries import shown, whole_number
from pipeline.records import Mask

SMALLEST_POLYGON = 6    # numbers: x and y of three corners


class RunLengths(Mapping[str, Any]):
    """A mask as COCO's run lengths, `size` and `counts` as bytes, whose runs need not be decoded again.

    borders: where the mask begins and ends, in turns: positions in the frame column after column, int64, an even
    number. The bytes are made when somebody asks for them. COCO's `iou` wants `dict` of it.
    """

    __slots__ = ("_counts", "borders", "size")

    def __init__(self, runs: np.ndarray, size: tuple[int, int], counts: bytes | None = None) -> None:
        """runs: pixels of every run, int64, background first, which fill the frame."""
        self.size = size
        self.borders = np.add.accumulate(runs)[:len(runs) // 2 * 2]
        self._counts = counts

    def __getitem__(self, name: str) -> Any:
        if name == "size":
            return list(self.size)
        if name != "counts":
            raise KeyError(name)
        if self._counts is None:
            runs = np.diff(self.borders, prepend=0, append=self.size[0] * self.size[1])
            told = {"size": self["size"], "counts": (runs if runs[-1] else runs[:-1]).tolist()}
            self._counts = coco.frPyObjects(told, *self.size)["counts"]
        return self._counts

    def __iter__(self) -> Iterator[str]:
        return iter(("size", "counts"))

    def __len__(self) -> int:
        return 2


def packed_mask(mask: Any, *, height: int, width: int) -> Mask | None:
    """Compressed run lengths (size, counts as bytes) of a mask given as run lengths or as polygons.

    None if the object is absent or covers no pixel. Polygons are lists of numbers x, y, x, y, ... or of pairs, one or
    several; those with fewer than three corners cover nothing. Memory is bounded by the frame and the length of `mask`.
    Raises ValueError, in words for people, for anything else, and for a mask that does not fit the frame.
    """
    (packed,) = packed_masks([mask], height=height, width=width)
    if isinstance(packed, ValueError):
        raise packed
    return packed


def packed_masks(masks: Sequence[Any], *, height: int, width: int) -> list[Mask | ValueError | None]:
    """`packed_mask` of every mask, or the error that it raises. Compressed run lengths are decoded together."""
    texts = [mask["counts"] for mask in masks if _is_compressed(mask)]
    decoded = iter(runs_of_all(texts))
    packed: list[Mask | ValueError | None] = []
    for mask in masks:
        try:
            packed.append(_packed(mask, next(decoded) if _is_compressed(mask) else None, (height, width)))
        except ValueError as error:
            packed.append(error)
    return packed


def _is_compressed(mask: Any) -> bool:
    return isinstance(mask, dict) and isinstance(mask.get("counts"), str)


def _packed(mask: Any, decoded: np.ndarray | None, size: tuple[int, int]) -> Mask | None:
    """decoded: the runs of a mask with compressed run lengths; None if they cannot be read."""
    if mask is None or mask in ([], {}):
        return None
    if isinstance(mask, list):
        return _packed_polygons(mask, *size)
    if isinstance(mask, dict):
        return _packed_runs(mask, decoded, size)
    raise ValueError(f"the mask is {shown(mask)}; it must be polygons or run lengths.")


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


def _packed_runs(mask: dict, decoded: np.ndarray | None, size: tuple[int, int]) -> RunLengths | None:
    if "size" not in mask or "counts" not in mask:
        raise ValueError(f"the mask has the fields {shown(sorted(map(str, mask)))}; run lengths need size and counts.")
    told = mask["size"]
    if not isinstance(told, list) or [whole_number(side) for side in told] != list(size):
        sides = f"[{', '.join(map(shown, told))}]" if isinstance(told, list) and len(told) == 2 else shown(told)
        raise ValueError(f"the mask has the size {sides} (height, width), the frame has {list(size)}.")
    counts = mask["counts"]
    pixels = size[0] * size[1]
    if not isinstance(counts, str):
        runs = _uncompressed(counts, pixels)
        return RunLengths(runs, size) if _covers(runs) else None
    if decoded is None or decoded.max() > pixels or decoded.sum() != pixels:
        described = "cannot be read" if decoded is None else f"sum to {sum(decoded.tolist())} pixels"
        raise ValueError(f"the compressed run lengths {described}; a frame has {pixels}.")
    return RunLengths(decoded, size, counts.encode()) if _covers(decoded) else None


def _covers(runs: np.ndarray) -> bool:
    """Whether a mask has a pixel, as mostly the second run tells, which is the first inside of it."""
    return len(runs) > 1 and bool(runs[1] or runs[1::2].any())


def _uncompressed(counts: Any, pixels: int) -> np.ndarray:
    """The runs of uncompressed run lengths, int64. Raises ValueError where they do not fill the frame."""
    if not isinstance(counts, list):
        raise ValueError(f"the run lengths are {shown(counts)}; they must be a list or a text.")
    told = counts
    if countOf(map(type, counts), int) < len(counts):
        told = [whole_number(count) for count in counts]
        if None in told:
            raise ValueError(f"one of the run lengths is {shown(counts[told.index(None)])}; it must be a whole number.")
    try:
        runs = np.fromiter(told, np.int64, len(told))
        fits = runs.view(np.uint64).max(initial=0) <= pixels == runs.sum()      # a negative number is a large one there
    except OverflowError:
        fits = False
    if not fits:
        raise ValueError(f"the run lengths sum to {sum(told)} pixels, and the smallest is {min(told, default=0)}; a "
                         f"frame has {pixels}.")
    return runs


def runs_of(counts: str) -> np.ndarray | None:
    """Pixels of every run in compressed run lengths, background first, int64; None if `counts` cannot be decoded."""
    return runs_of_all([counts])[0]


def runs_of_all(texts: Sequence[str]) -> list[np.ndarray | None]:
    """`runs_of` of every text, decoded in one pass, which takes a third of the time.

    The coding is that of COCO's C library: a character holds five bits of a number, lowest bits first, and its sixth
    bit is set if more characters follow. From the fourth number on, a number is stored as its difference from the
    number two before it.
    """
    joined = "".join(texts)
    lasts = np.cumsum([len(text) for text in texts], dtype=np.int64) - 1        # last character of each text
    numbers = ends = None
    if joined.isascii() and all(texts):
        codes = np.frombuffer(joined.encode(), np.uint8) - np.uint8(48)         # below "0" they become large
        ends = np.flatnonzero(codes < 32)                                       # last character of each number
        numbers = _numbers(codes, ends, lasts)
    if numbers is None:
        return [None] if len(texts) == 1 else [runs_of(text) for text in texts]
    stops = np.searchsorted(ends, lasts, side="right").tolist()
    return [_undifferenced(numbers[start:stop]) for start, stop in pairwise([0, *stops])]


def _numbers(codes: np.ndarray, ends: np.ndarray, lasts: np.ndarray) -> np.ndarray | None:
    """The numbers that end at `ends`, int64. None where a character is none of the coding, or a text ends inside of a
    number."""
    if not len(codes):
        return np.zeros(0, np.int64)
    sizes = np.diff(ends, prepend=-1)                                           # characters of each number
    longest = sizes.max(initial=0)
    if codes.max() > 63 or (codes[lasts] > 31).any() or longest > 7:            # no picture has 2^34 pixels
        return None
    numbers = (codes[ends].astype(np.int64) ^ 16) - 16                          # the highest five bits, with the sign
    for place in range(1, longest):
        longer = np.flatnonzero(sizes > place)
        numbers[longer] = numbers[longer] << 5 | codes[ends[longer] - place] & 31
    return numbers


def _undifferenced(runs: np.ndarray) -> np.ndarray | None:
    """The runs of the numbers of a text, in their place; None where one is negative."""
    np.add.accumulate(runs[1::2], out=runs[1::2])
    np.add.accumulate(runs[2::2], out=runs[2::2])
    return None if runs.min() < 0 else runs
