"""Colours of classes and tracks, the same in every frame, video and run."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Mapping

import numpy as np

from model.contracts import VideoSegment
from model.labels import ClassTable

Color = tuple[int, int, int]    # red, green, blue in 0-255

_GOLDEN = 0.618034    # of a turn: each next hue falls into the widest gap the earlier ones left
_SHADES = ((0.85, 0.95), (0.60, 0.80), (0.95, 0.70), (0.45, 1.00))    # saturation, value; taken in turn


def color_of(base: Color, track: int) -> Color:
    """Colour of a track: that of the class for stuff (track 0) and for track 1, and other hues and shades after it."""
    if track <= 1:
        return base
    hue = colorsys.rgb_to_hsv(*(channel / 255 for channel in base))[0]
    turned = colorsys.hsv_to_rgb((hue + _GOLDEN * (track - 1)) % 1, *_SHADES[(track - 1) % len(_SHADES)])
    return tuple(round(255 * channel) for channel in turned)


def palette(segments: Mapping[int, VideoSegment], classes: ClassTable) -> dict[int, Color]:
    """Panoptic id -> colour of every segment of a video."""
    return {panoptic: color_of(classes.classes[segment.class_index].color, segment.track)
            for panoptic, segment in segments.items()}


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
