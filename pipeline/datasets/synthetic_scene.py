"""The contents of a synthetic video: paths of things, occlusion, camera and light.

The preset `easy` tests segmentation; identities are rarely lost. In `hard`, twins (equal in class, colour, size and
texture) cross behind a pillar or outside the frame, stay hidden for longer than a clip, and come out where the other
one went in. Only their motion, which goes on while they are hidden, tells them apart.
"""

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
LONG_HIDING = 4    # frames; longer than any clip of the small recipes


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One moving object. Lengths are in pixels, angles in radians."""

    kind: str
    color: np.ndarray      # 3, 0-255
    texture: str
    radius: float
    angle: np.ndarray      # T
    centers: np.ndarray    # T 2, (y, x); outside the frame after the thing has left


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A band of stuff whose upper border is a moving wave: height + amplitude * sin(wavenumber * x + speed * t)."""

    kind: str
    height: float
    amplitude: float
    wavenumber: float
    speed: float
    phase: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pillar:
    """Stuff in front of all things: a strip between start and end along an axis (0: y, 1: x)."""

    kind: str
    axis: int
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One video before it is drawn."""

    height: int
    width: int
    things: tuple[Thing, ...]      # nearest first
    bands: tuple[Band, ...]        # top to bottom
    pillar: Pillar | None
    camera: np.ndarray             # T 2, (y, x) in pixels
    light: np.ndarray              # T, gain around 1
    grain: np.ndarray              # T 2, where the noise of a frame is cut from the tile
    texture_seed: int


def make_scene(config: SyntheticConfig, rng: np.random.Generator) -> Scene:
    """Draw one random video."""
    times = np.arange(config.frames)
    side = min(config.height, config.width)
    if config.preset == "hard":
        things, pillar = _hard_things(config, rng)
    else:
        things = tuple(_easy_thing(config, rng) for _ in range(rng.integers(2, 5)))
        pillar = None
    sway = [np.sin(rng.uniform(0.1, 0.35) * times + rng.uniform(0, 2 * np.pi)) for _ in range(3)]
    return Scene(height=config.height, width=config.width, things=things, bands=_bands(config, rng), pillar=pillar,
                 camera=config.camera * side * np.stack(sway[:2], axis=1), light=1 + config.light * sway[2],
                 grain=rng.integers(0, 16, size=(config.frames, 2)), texture_seed=int(rng.integers(1 << 31)))


def _bands(config: SyntheticConfig, rng: np.random.Generator) -> tuple[Band, ...]:
    """Two or three bands (fewer if there are fewer classes). If there is sky, it is on top."""
    count = min(config.stuff, int(rng.integers(2, 4)))
    kinds = sorted(rng.choice(config.stuff, size=count, replace=False))
    kinds = kinds[:1] + list(rng.permutation(kinds[1:]))
    cuts = (np.arange(count) + rng.uniform(-0.2, 0.2, size=count)) / count * config.height
    return tuple(Band(kind=STUFF[kind], height=-np.inf if index == 0 else cut,
                      amplitude=rng.uniform(0.02, 0.06) * config.height,
                      wavenumber=2 * np.pi * rng.uniform(0.7, 2.0) / config.width, speed=rng.uniform(-0.35, 0.35),
                      phase=rng.uniform(0, 2 * np.pi)) for index, (kind, cut) in enumerate(zip(kinds, cuts)))


def _thing(config: SyntheticConfig, rng: np.random.Generator, radius: float) -> Thing:
    """A thing without a path. One in five has its colour drawn from all classes, not from its own."""
    kind = THINGS[rng.integers(config.things)]
    color_kind = THINGS[rng.integers(config.things)] if rng.random() < 0.2 else kind
    color = np.array(COLORS[color_kind]) + rng.uniform(-20, 20, size=3)
    angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.15, 0.15) * np.arange(config.frames)
    return Thing(kind=kind, color=color, texture=TEXTURES[rng.integers(len(TEXTURES))],
                 radius=radius * min(config.height, config.width), angle=angle, centers=np.zeros((config.frames, 2)))


def _easy_thing(config: SyntheticConfig, rng: np.random.Generator) -> Thing:
    """A thing that moves straight and bounces off the frame; three in ten leave once and come back there."""
    thing = _thing(config, rng, rng.uniform(0.095, 0.17))
    times = np.arange(config.frames)
    size = np.array([config.height, config.width])
    heading = rng.uniform(0, 2 * np.pi)
    side = size.min()
    velocity = rng.uniform(0.0125, 0.05) * side * np.array([np.sin(heading), np.cos(heading)])
    start = rng.uniform(thing.radius, size - thing.radius)
    centers = _bounce(start + times[:, None] * velocity, thing.radius, size - thing.radius)
    if rng.random() < 0.3:
        axis = int(rng.integers(2))
        far = bool(rng.integers(2))
        speed = rng.uniform(0.03, 0.05) * side
        turn = rng.uniform(0.35, 0.65) * config.frames
        outside = 0.75 * thing.radius + speed * (rng.uniform(0.2, 0.7) - np.abs(times - turn))    # beyond the border
        centers[:, axis] = size[axis] + outside if far else -outside
    return replace(thing, centers=centers)


def _bounce(line: np.ndarray, low: float, high: np.ndarray) -> np.ndarray:
    """Fold a straight path, T 2, back and forth between two walls."""
    room = high - low
    return low + room - np.abs((line - low) % (2 * room) - room)


def _hard_things(config: SyntheticConfig, rng: np.random.Generator) -> tuple[tuple[Thing, ...], Pillar]:
    """One or two pairs of twins and perhaps a thing without a twin, each on its own lane."""
    axis = int(rng.integers(2))
    along, across = (config.height, config.width) if axis == 0 else (config.width, config.height)
    half = rng.uniform(0.19, 0.23) * along
    middle = along / 2 + rng.uniform(-0.03, 0.03) * along
    pillar = Pillar(kind=STUFF[config.stuff - 1], axis=axis, start=middle - half, end=middle + half)
    members = [2] * int(1 + (rng.random() < 0.65)) + [1] * int(rng.random() < 0.3)
    things = []
    model = None
    for lane, count in enumerate(rng.permutation(members)):
        if model is None or rng.random() > 0.3:    # otherwise this lane repeats the appearance of the one before
            model = _thing(config, rng, rng.uniform(0.095, 0.12))
        phases = _phases(config.frames, rng)
        forward = bool(rng.integers(2))
        for member in range(count):
            centers = np.empty((config.frames, 2))
            centers[:, axis] = _ring(phases, pillar, along, model.radius, frames=config.frames,
                                     forward=forward ^ bool(member))
            centers[:, 1 - axis] = (lane + 0.5) / len(members) * across + rng.uniform(-0.15, 0.15) * model.radius
            things.append(replace(model, centers=centers))
    return tuple(things[index] for index in rng.permutation(len(things))), pillar


def _phases(frames: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Progress (0-1) within each phase; visible and hidden phases alternate. Twins share them, so both hide at once."""
    length = int(rng.integers(3, 6))
    entered = rng.uniform(0.35, 0.55)
    phases = [entered + (1 - entered) * np.arange(length) / length]
    while sum(map(len, phases)) < frames:
        hidden = len(phases) % 2 == 1
        length = int(rng.integers(LONG_HIDING, LONG_HIDING + 2) if hidden else rng.integers(4, 6))
        phases.append((np.arange(length) + 1) / (length + 1))
    return phases


def _ring(phases: list[np.ndarray], pillar: Pillar, along: int, radius: float, *, frames: int,
          forward: bool) -> np.ndarray:
    """Position along the axis, T, through near side, pillar, far side, outside and near side again, or backwards."""
    inside = 0.95 * radius
    outside = 0.95 * radius
    stations = [(-outside, pillar.start + inside), (pillar.start + inside, pillar.end - inside),
                (pillar.end - inside, along + outside), (-9 * radius, -9 * radius)]
    path = []
    for index, progress in enumerate(phases):
        start, end = stations[index % 4] if forward else stations[(2 - index) % 4][::-1]
        path.append(start + (end - start) * progress)
    return np.concatenate(path)[:frames]
