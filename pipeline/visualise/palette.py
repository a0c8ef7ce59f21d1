"""Colours of classes and objects, the same in every frame, video and run."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np

from model.contracts import VideoSegment
from model.labels import ClassTable

Color = tuple[int, int, int]    # red, green, blue in 0-255

HUES = 36
SHADES = ((1.0, 1.0), (0.6, 1.0), (1.0, 0.65), (0.45, 0.75), (1.0, 0.4))    # saturation, value
CLEAR = 90          # distance of an object's colour to those of all classes, in red, green and blue together
APART = 30          # least distance of the colours of two objects
FEWEST = 32         # colours of objects; where the classes leave no room for so many, they come nearer to the classes
_GOLDEN = 0.618034  # of the list: the objects of the next class begin where those of the others have not yet come


@lru_cache(maxsize=16)
def identity_colors(classes: ClassTable) -> tuple[Color, ...]:
    """Colours of objects, far from the colour of every class; each is as far from those before as can be.

    So an object is told apart from others of its class, and from one that was missed and shows its own colour.
    """
    candidates = np.array([[round(255 * channel) for channel in colorsys.hsv_to_rgb(hue / HUES, *shade)]
                           for shade in SHADES for hue in range(HUES)])                                     # n 3
    clearance = _distances(candidates, np.array([info.color for info in classes.classes])).min(1)           # n
    for clear in range(CLEAR, -1, -5):
        colors = _farthest_first(candidates[clearance >= clear])
        if len(colors) >= FEWEST:
            break
    return tuple(tuple(map(int, color)) for color in colors)


def _farthest_first(colors: np.ndarray) -> list[np.ndarray]:
    """The colours, n 3, each as far as possible from all before it, as long as that is `APART`."""
    nearest = np.full(len(colors), np.inf)      # distance to a colour that was chosen before
    chosen = []
    while len(colors) and nearest.max() >= APART:
        chosen.append(colors[int(nearest.argmax())])
        nearest = np.minimum(nearest, _distances(colors, chosen[-1][None])[:, 0])
    return chosen


def palette(segments: Mapping[int, VideoSegment], classes: ClassTable) -> dict[int, Color]:
    """Panoptic id -> colour of every segment of a video: its class's, or that of the object's identity."""
    return {panoptic: color_of(segment, classes) for panoptic, segment in segments.items()}


def color_of(segment: VideoSegment, classes: ClassTable) -> Color:
    """The colour of the class for stuff and crowds (track 0); the same one for an object in every video and run."""
    if not segment.track:
        return classes.classes[segment.class_index].color
    colors = identity_colors(classes)
    first = round(_GOLDEN * len(colors) * int(classes.is_thing[:segment.class_index].sum()))
    return colors[(first + segment.track - 1) % len(colors)]


def _distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """n 3 and m 3 colours -> n m."""
    return np.linalg.norm(some[:, None].astype(float) - others[None], axis=-1)


def unique_colors(segments: Mapping[int, VideoSegment], classes: ClassTable) -> dict[int, Color]:
    """The palette with every colour used once and without black, so that colours identify segments in RGB-coded PNGs.

    Stuff keeps the colour of its class, as in VIPSeg. In the order of their ids, things whose colour is taken get the
    nearest free one.
    """
    wanted = palette(segments, classes)
    stuff = [i for i in sorted(segments) if not classes.is_thing[segments[i].class_index]]
    reserved = {_number(info.color) for info in classes.classes if not info.is_thing}
    taken = {0}
    colors = {}
    for panoptic in [*stuff, *sorted(segments.keys() - set(stuff))]:
        number = next(n for n in _nearest(_number(wanted[panoptic]))
                      if n not in taken and (panoptic in stuff or n not in reserved))
        taken.add(number)
        colors[panoptic] = (number >> 16, number >> 8 & 255, number & 255)
    return colors


def paint(ids: np.ndarray, colors: Mapping[int, Color]) -> np.ndarray:
    """Panoptic ids, H W -> H W 3 uint8. Void and ids without colour are black. IndexError for an id above the last."""
    table = np.zeros(max(colors, default=0) + 2, np.uint32)       # the last entry serves void, which is -1
    table[list(colors)] = [red | green << 8 | blue << 16 for red, green, blue in colors.values()]
    bytes_of = table[ids].astype("<u4", copy=False).view(np.uint8).reshape(*ids.shape, 4)
    return np.ascontiguousarray(bytes_of[..., :3])


def _nearest(number: int) -> Iterator[int]:
    """All 2^24 colour numbers by their distance from one, starting with itself."""
    for step in range(2**23 + 1):
        yield (number + step) % 2**24
        yield (number - step) % 2**24


def _number(color: Color) -> int:
    red, green, blue = color      # blue is lowest, so neighbouring numbers look alike
    return red << 16 | green << 8 | blue
