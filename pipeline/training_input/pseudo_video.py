"""Pseudo-videos: a camera that moves over a still and slowly turns makes a clip, or its frames are scaled one by one.

Sources: VITA, appendix A.1.1, after SeqFormer (arXiv 2112.08275), for windows that are drawn for each frame; the
released VITA code (vita/data/augmentation.py) for a window that moves, and for the turn. Frames of their own scale are
those of Video-kMaX (dlsrbgg33/video_kmax, `coco_video_panoptic_dataset_mapper.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipeline.clips import AugmentConfig, Transform, draw_color, draw_transform

_LONG_SIDE = 1333           # pixels; a still whose short side is `short_side` is at most so long
_PIVOT = (0.4, 0.6)         # where the point lies about which a still turns, as a fraction of each side


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoVideoConfig:
    """The motion of the camera. The augmentation of the input decides the size of its picture.

    motion: "independent" draws size and place of the window for each frame of a still, as VITA's paper says; the window
    of a video is at rest. "straight" draws one size, which moves on a straight line over stills and videos, as in
    VITA's released code.
    """

    short_side: tuple[int, ...] = (400, 500, 600)   # pixels; the still is taken to have one of these sizes
    crop: tuple[int, int] = (384, 600)              # smallest and largest side of a frame's window, at that size
    angle: float = 15.0                             # degrees; angles are drawn from -angle to angle, then sorted
    of_stills: float = 1.0      # probability that a clip of a still shows windows; otherwise it shows the whole still
    of_videos: float = 0.0      # probability that a clip of a real video shows a window
    motion: Literal["independent", "straight"] = "independent"

    def __post_init__(self) -> None:
        if min(self.short_side, default=0) < 1 or not 1 <= self.crop[0] <= self.crop[1]:
            raise ValueError(f"pseudo_video.short_side={self.short_side} and crop={self.crop} must be lengths of at "
                             "least 1 pixel, and crop must start with the smaller one")
        for name in ("of_stills", "of_videos"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"pseudo_video.{name} is {getattr(self, name)}; give a probability between 0 and 1")
        if not 0 <= self.angle < 180:
            raise ValueError(f"pseudo_video.angle is {self.angle}; give degrees from 0 to below 180")


def draw_camera_path(rng: np.random.Generator, config: PseudoVideoConfig, augment: AugmentConfig,
                     source: tuple[int, int], frames: int, *, still: bool) -> tuple[Transform, ...]:
    """Draw one transform per frame for a clip of a still, or of a video, of `source` (height, width).

    Size, flip and colours are drawn for the clip. A still also turns slowly. A window larger than the source is cut to
    it.
    """
    probability = config.of_stills if still else config.of_videos
    has_window = probability == 1 or (probability > 0 and rng.random() < probability)
    if config.motion == "straight":
        return _draw_straight(rng, config, augment, source, frames, has_window=has_window, turns=still)
    if still:
        return _draw_independent(rng, config, augment, source, frames, has_window=has_window)
    if has_window:
        return _draw_independent(rng, replace(config, angle=0.0), augment, source, 1, has_window=True) * frames
    return (draw_transform(rng, augment, source),) * frames


def _draw_straight(rng: np.random.Generator, config: PseudoVideoConfig, augment: AugmentConfig, source: tuple[int, int],
                   frames: int, *, has_window: bool, turns: bool) -> tuple[Transform, ...]:
    """The window is augmented as if the video consisted of it."""
    window = source
    corners = np.zeros((frames, 2), dtype=int)      # of the window: top and left
    if has_window:
        scale = min(int(rng.choice(config.short_side)) / min(source), _LONG_SIDE / max(source))
        window = tuple(_draw_length(rng, side, scale, config.crop) for side in source)
        margin = np.subtract(source, window)
        first = rng.integers(margin + 1)
        last = rng.integers(first, margin + 1)
        way = _sorted(rng, rng.random(frames))[:, None]
        corners = np.round(first * way + last * (1 - way)).astype(int)
    drawn = draw_transform(rng, augment, window)
    path = tuple(replace(drawn, source=source, box=_moved(drawn.box, *corner)) for corner in corners.tolist())
    if not (turns and config.angle):
        return path
    pivot = tuple(rng.uniform(*_PIVOT, 2).tolist())
    angles = _sorted(rng, rng.uniform(-config.angle, config.angle, frames))
    return tuple(replace(transform, angle=angle, pivot=pivot, cut_first=True)
                 for transform, angle in zip(path, angles.tolist()))


def _draw_length(rng: np.random.Generator, side: int, scale: float, crop: tuple[int, int]) -> int:
    """One side of the window, in pixels of the source; `crop` holds at the given scale."""
    scaled = max(round(side * scale), 1)
    kept = rng.integers(min(scaled, crop[0]), min(scaled, crop[1]) + 1)
    return max(min(round(kept / scale), side), 1)


def _sorted(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """In order, ascending or descending."""
    ascending = np.sort(values)
    return ascending[::-1] if rng.random() < 0.5 else ascending


def _moved(box: tuple[int, int, int, int], down: int, right: int) -> tuple[int, int, int, int]:
    return box[0] + down, box[1] + right, box[2] + down, box[3] + right


def _draw_independent(rng: np.random.Generator, config: PseudoVideoConfig, augment: AugmentConfig,
                      source: tuple[int, int], frames: int, *, has_window: bool) -> tuple[Transform, ...]:
    """Windows that would not fit the network input are scaled down."""
    pixel = min(source) / int(rng.choice(config.short_side))        # pixels of the still per pixel at the drawn size
    angles = np.sort(rng.uniform(-config.angle, config.angle, frames))
    short_side = int(rng.choice(augment.short_side)) if augment.short_side else None
    zoom = rng.uniform(*augment.scale)
    flip = bool(rng.random() < augment.flip)
    color = draw_color(rng) if augment.color else None
    path = []
    for angle in angles:
        (top, bottom), (left, right) = (_draw_side(rng, side, config.crop[0] * pixel, config.crop[1] * pixel)
                                        if has_window else (0, side) for side in source)
        height = bottom - top
        width = right - left
        fit_factor = augment.fit_factor((height, width))
        factor = min(zoom * (short_side / min(height, width) if short_side else fit_factor), fit_factor)
        resized = (max(round(height * factor), 1), max(round(width * factor), 1))
        path.append(Transform(
            source=source, box=(top, left, bottom, right), padded=augment.canvas([resized]), flip=flip, color=color,
            resized=resized, angle=float(angle), interpolation=augment.interpolation))
    return tuple(path)


def draw_jitter(rng: np.random.Generator, augment: AugmentConfig, source: tuple[int, int],
                frames: int) -> tuple[Transform, ...]:
    """Draw scale and crop of each frame of a still of `source` (height, width); flip and colours are the clip's."""
    drawn = [draw_transform(rng, augment, source) for _ in range(frames)]
    return tuple(replace(transform, flip=drawn[0].flip, color=drawn[0].color) for transform in drawn)


def _draw_side(rng: np.random.Generator, side: int, smallest: float, largest: float) -> tuple[int, int]:
    """Start and stop of a window along one axis, in pixels of the still."""
    kept = max(min(round(rng.uniform(min(smallest, side), min(largest, side))), side), 1)
    first = int(rng.integers(side - kept + 1))
    return first, first + kept
