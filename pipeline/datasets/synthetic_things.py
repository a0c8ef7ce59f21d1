"""The things of a synthetic video: how they look, and how they move in the easy world."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipeline.datasets.synthetic import SyntheticConfig

THINGS = ("disc", "square", "triangle", "cross")     # each kind is a class
STUFF = ("sky", "water", "ground", "wall")
TEXTURES = ("plain", "stripes", "checks")
COLORS = {
    "disc": (215, 60, 50), "square": (230, 195, 60), "triangle": (150, 70, 190), "cross": (60, 185, 95),
    "sky": (125, 170, 225), "water": (50, 105, 150), "ground": (130, 110, 75), "wall": (170, 125, 115),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One moving object. Lengths are in pixels, angles in radians."""

    kind: str
    color: np.ndarray      # 3, 0-255
    texture: str
    radius: float
    angle: np.ndarray      # T
    centers: np.ndarray    # T 2, (y, x); outside the frame while the thing is away


@dataclass(frozen=True, slots=True, kw_only=True)
class Pillar:
    """Stuff in front of all things: a strip between start and end along an axis (0: y, 1: x)."""

    kind: str
    axis: int
    start: float
    end: float


def new_thing(config: SyntheticConfig, rng: np.random.Generator, radius: float) -> Thing:
    """A thing without a path. One in five has its colour drawn from all classes, not from its own.

    radius: as a fraction of the shorter side.
    """
    kind = THINGS[rng.integers(config.things)]
    color_kind = THINGS[rng.integers(config.things)] if rng.random() < 0.2 else kind
    color = np.array(COLORS[color_kind]) + rng.uniform(-20, 20, size=3)
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.15, 0.15) * np.arange(config.frames)
    return Thing(kind=kind, color=color, texture=TEXTURES[rng.integers(len(TEXTURES))],
                 radius=radius * min(config.height, config.width), angle=angle, centers=np.zeros((config.frames, 2)))


def easy_things(config: SyntheticConfig, rng: np.random.Generator) -> tuple[tuple[Thing, ...], None]:
    """Two to four things and no pillar."""
    return tuple(_easy_thing(config, rng) for _ in range(rng.integers(2, 5))), None


def _easy_thing(config: SyntheticConfig, rng: np.random.Generator) -> Thing:
    """A thing that moves straight and bounces off the frame; three in ten leave once and come back there."""
    thing = new_thing(config, rng, rng.uniform(0.095, 0.17))
    times = np.arange(config.frames)
    size = np.array([config.height, config.width])
    heading = rng.uniform(0, 2 * np.pi)
    side = size.min()
    velocity = rng.uniform(0.0125, 0.05) * side * np.array([np.sin(heading), np.cos(heading)])
    start = rng.uniform(thing.radius, size - thing.radius)
    centers = bounce(start + times[:, None] * velocity, thing.radius, size - thing.radius)
    if rng.random() < 0.3:
        axis = int(rng.integers(2))
        far = bool(rng.integers(2))
        speed = rng.uniform(0.03, 0.05) * side
        turn = rng.uniform(0.35, 0.65) * config.frames
        outside = 0.75 * thing.radius + speed * (rng.uniform(0.2, 0.7) - np.abs(times - turn))    # beyond the border
        centers[:, axis] = size[axis] + outside if far else -outside
    return replace(thing, centers=centers)


def bounce(line: np.ndarray, low: float, high: np.ndarray) -> np.ndarray:
    """Fold a straight path, T 2, back and forth between two walls."""
    room = high - low
    return low + room - np.abs((line - low) % (2 * room) - room)
