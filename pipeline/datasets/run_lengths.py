"""Masks of instance data sets, in any form COCO's tools accept, as compressed run lengths."""

from __future__ import annotations

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
    if isinstance(counts, list):
        if sum(counts) != height * width or min(counts) < 0:
            raise ValueError(f"the run lengths sum to {sum(counts)} pixels, the smallest is {min(counts, default=0)}; "
                             f"a frame has {height * width}.")
        mask = coco.frPyObjects(mask, height, width)
    elif isinstance(counts, str):
        mask = {"size": [height, width], "counts": counts.encode()}
    return {"size": [height, width], "counts": mask["counts"]} if coco.area(mask) else None
