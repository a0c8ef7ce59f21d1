"""Pseudo-videos: a camera that moves over a still and slowly turns makes a clip, or its frames are scaled one by one.

Sources: VITA, appendix A.1.1, after SeqFormer (arXiv 2112.08275); the turn follows the data set mapper of the released
VITA code. Frames of their own scale are those of Video-kMaX (dlsrbgg33/video_kmax,
`coco_video_panoptic_dataset_mapper.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.clips import AugmentConfig, Transform, draw_color, draw_transform


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoVideoConfig:
    """The motion of the camera. The augmentation of the input decides the size of its picture."""

    short_side: tuple[int, ...] = (400, 500, 600)   # pixels; the still is taken to have one of these sizes
    crop: tuple[int, int] = (384, 600)              # smallest and largest side of a frame's window, at that size
    angle: float = 15.0                             # degrees; angles are drawn from -angle to angle, then sorted
    of_videos: float = 0.0      # probability that a clip of a real video shows one such window, at rest

    def __post_init__(self) -> None:
        if min(self.short_side, default=0) < 1 or not 1 <= self.crop[0] <= self.crop[1]:
            raise ValueError(f"pseudo_video.short_side={self.short_side} and crop={self.crop} must be lengths of at "
                             "least 1 pixel, and crop must start with the smaller one")
        if not 0 <= self.of_videos <= 1:
            raise ValueError(f"pseudo_video.of_videos is {self.of_videos}; give a probability between 0 and 1")
        if not 0 <= self.angle < 180:
            raise ValueError(f"pseudo_video.angle is {self.angle}; give degrees from 0 to below 180")


def draw_camera_path(rng: np.random.Generator, config: PseudoVideoConfig, augment: AugmentConfig,
                     source: tuple[int, int], frames: int) -> tuple[Transform, ...]:
    """Draw one transform per frame for a still of `source` (height, width).

    Size, flip and colours are drawn for the clip, window and angle for each frame. A window larger than the still is
    cut to it, and one that would not fit the network input is scaled down.
    """
    pixel = min(source) / int(rng.choice(config.short_side))        # pixels of the still per pixel at the drawn size
    angles = np.sort(rng.uniform(-config.angle, config.angle, frames))
    short_side = int(rng.choice(augment.short_side)) if augment.short_side else None
    zoom = rng.uniform(*augment.scale)
    flip = bool(rng.random() < augment.flip)
    color = draw_color(rng) if augment.color else None
    path = []
    for angle in angles:
        (top, bottom), (left, right) = (_draw_side(rng, side, config.crop[0] * pixel, config.crop[1] * pixel)
                                        for side in source)
        height = bottom - top
        width = right - left
        fit_factor = min(augment.size[0] / height, augment.size[1] / width)
        factor = min(zoom * (short_side / min(height, width) if short_side else fit_factor), fit_factor)
        path.append(Transform(
            source=source, box=(top, left, bottom, right), padded=augment.size, flip=flip, color=color,
            resized=(max(round(height * factor), 1), max(round(width * factor), 1)), angle=float(angle)))
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
