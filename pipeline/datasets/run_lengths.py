"""Masks of instance data sets, in any form COCO's tools accept, as compressed run lengths."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco

POLYGON = 6    # numbers in the smallest polygon, x and y of three corners


def packed_mask(mask: dict | list | None, *, height: int, width: int) -> dict | None:
    """Run lengths (size, counts as bytes) from run lengths, compressed or not, or a list of polygons.

    None where the object is absent or covers no pixel. Polygons of less than three corners cover none.
    Raises ValueError when the mask has another size than the frame, or run lengths that do not fill it.
    """
    if not mask:
        return None
    if isinstance(mask, list):
        polygons = [corners for corners in mask if len(corners) >= POLYGON]
        if not polygons:
            return None
        mask = coco.merge(coco.frPyObjects(polygons, height, width))
    if list(mask["size"]) != [height, width]:
        raise ValueError(f"the mask has the size {mask['size']} (height, width), the frame [{height}, {width}].")
    counts = mask["counts"]
    pixels = height * width
    if isinstance(counts, bytes):       # of polygons
        packed = counts
    elif isinstance(counts, str):
        runs = runs_of(counts)
        packed = counts.encode()
        if runs is None or runs.sum() != pixels:
            described = "cannot be read" if runs is None else f"sum to {runs.sum()} pixels"
            raise ValueError(f"the compressed run lengths {described}; a frame has {pixels}.")
    else:
        if sum(counts) != pixels or min(counts) < 0:
            raise ValueError(f"the run lengths sum to {sum(counts)} pixels, the smallest is {min(counts, default=0)}; "
                             f"a frame has {pixels}.")
        packed = coco.frPyObjects(mask, height, width)["counts"]
    packed = {"size": [height, width], "counts": packed}
    return packed if coco.area(packed) else None


def runs_of(counts: str) -> np.ndarray | None:
    """Pixels of every run of compressed run lengths, background first; None where they are none.

    The coding is that of COCO's C library: five bits a character, lowest first, the sixth says that more follow; from
    the fourth number on they are differences to the number two before.
    """
    codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(~codes & 32)                                          # last character of each number
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:                                                         # no picture has 2^34 pixels
        return None
    runs = np.add.reduceat((codes & 31) << 5 * place, starts)
    runs -= (codes[ends] >> 4 & 1) << 5 * (ends - starts + 1)                   # the sign
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return None if runs.min() < 0 else runs
