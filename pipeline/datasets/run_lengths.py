"""Masks of instance data sets as compressed run lengths, read from any form that COCO's tools accept."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco

SMALLEST_POLYGON = 6    # numbers: x and y of three corners


def packed_mask(mask: dict | list | None, *, height: int, width: int) -> dict | None:
    """Compressed run lengths (size, counts as bytes) of a mask given as run lengths or as a list of polygons.

    None if the object is absent or covers no pixel. Polygons with fewer than three corners cover none.
    Raises ValueError when the mask has another size than the frame, or when its run lengths do not fill the frame.
    """
    if not mask:
        return None
    if isinstance(mask, list):
        polygons = [corners for corners in mask if len(corners) >= SMALLEST_POLYGON]
        if not polygons:
            return None
        mask = coco.merge(coco.frPyObjects(polygons, height, width))
    if list(mask["size"]) != [height, width]:
        raise ValueError(f"the mask has the size {mask['size']} (height, width), the frame has [{height}, {width}].")
    counts = mask["counts"]
    pixels = height * width
    if isinstance(counts, bytes):       # made from polygons
        packed = counts
    elif isinstance(counts, str):
        runs = runs_of(counts)
        packed = counts.encode()
        if runs is None or runs.sum() != pixels:
            described = "cannot be read" if runs is None else f"sum to {runs.sum()} pixels"
            raise ValueError(f"the compressed run lengths {described}; a frame has {pixels}.")
    else:
        if sum(counts) != pixels or min(counts) < 0:
            raise ValueError(f"the run lengths sum to {sum(counts)} pixels, and the smallest is "
                             f"{min(counts, default=0)}; a frame has {pixels}.")
        packed = coco.frPyObjects(mask, height, width)["counts"]
    packed = {"size": [height, width], "counts": packed}
    return packed if coco.area(packed) else None


def runs_of(counts: str) -> np.ndarray | None:
    """Pixels of every run in compressed run lengths, background first; None if `counts` cannot be decoded.

    The coding is that of COCO's C library: a character holds five bits of a number, lowest bits first, and its sixth
    bit is set if more characters follow. From the fourth number on, a number is stored as its difference from the
    number two before it.
    """
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
