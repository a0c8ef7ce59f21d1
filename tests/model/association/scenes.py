"""Clips of rectangles with one appearance each, as the input of a linker; small enough to follow by eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.contracts import ClipSegments
from model.inference.linked import locate
from model.labels import VOID

SIZE = (20, 40)     # H W
Place = tuple[int, int] | None      # left and top of a 4 x 4 square in one frame; None: absent


def look(degrees: float) -> np.ndarray:
    """An appearance as a direction in the plane; its length must not matter."""
    return 3 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def thing(degrees: float, *places: Place, label: int = 0) -> tuple[int, np.ndarray, Sequence[Place]]:
    """A square with a class, an appearance, and its place in each frame of the clip."""
    return label, look(degrees), places


def clip(*segments: tuple[int, np.ndarray, Sequence[Place]], shared: int = 0, frames: int = 1,
         stuff: Sequence[int] = ()) -> ClipSegments:
    """Segments in this order; classes in `stuff` are stuff. Later segments hide earlier ones."""
    maps = np.full((max([frames, *(len(places) for _, _, places in segments)]), *SIZE), VOID, dtype=np.int32)
    for segment, (_, _, places) in enumerate(segments):
        for frame, place in enumerate(places):
            if place is not None:
                left, top = place
                maps[frame, top:top + 4, left:left + 4] = segment
    classes = np.array([label for label, _, _ in segments], dtype=np.int64)
    boxes, _ = locate(list(maps), len(segments))
    return ClipSegments(frames=list(maps), shared=shared, classes=classes, is_thing=~np.isin(classes, stuff),
                        embeddings=np.array([each for _, each, _ in segments]).reshape(len(segments), 2), boxes=boxes)
