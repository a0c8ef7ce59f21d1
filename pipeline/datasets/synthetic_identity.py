"""Worlds in which it is hard to keep who is who, each with one cause. Lengths are fractions of the shorter side.

    hard       twins on a lane change places behind a pillar or outside the frame; only their motion tells them apart
    long       the same with longer stays away: a long video shows many returns from outside the frame
    reappear   things of one class vanish and come back elsewhere; only colour and texture tell them apart
    cross      twins in even motion pass behind a wide pillar: against each other, side by side, or changing lanes
    camera     the same, slower, under a camera that pans and zooms: motion shows only against that of the stuff
    crowd      five equal things bounce, cover each other and pass a narrow pillar
    many       twenty small things, four each of five looks, do the same

Twins are equal in class, colour, size and texture. Everyone who hides in `hard`, `long`, `reappear`, `cross` and
`camera` is away for longer than a clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline.datasets.synthetic_things import (
    COLORS,
    STUFF,
    TEXTURES,
    THINGS,
    Pillar,
    Thing,
    bounce,
    easy_things,
    new_thing,
)

if TYPE_CHECKING:
    from pipeline.datasets.synthetic import SyntheticConfig

Things = tuple[tuple[Thing, ...], Pillar | None]      # nearest first

LONG_HIDING = 4                # frames; longer than any clip of the small recipes
AWAY = -9                      # radii; where a thing is while it is outside the frame
MIXED = ("hard", "reappear", "cross", "crowd")     # each video of the preset `mixed` is one of these


def _hard_things(config: SyntheticConfig, rng: np.random.Generator, *, longest: int = LONG_HIDING + 1) -> Things:
    """One or two pairs of twins and perhaps a thing without a twin, each on its own lane.

    longest: frames that a thing hides at most.
    """
    axis = int(rng.integers(2))
    along, across = _along_across(config, axis)
    pillar = _pillar(config, rng, axis, half=rng.uniform(0.19, 0.23) * along)
    members = [2] * int(1 + (rng.random() < 0.65)) + [1] * int(rng.random() < 0.3)
    things = []
    model = None
    for lane, count in enumerate(rng.permutation(members)):
        if model is None or rng.random() > 0.3:    # otherwise this lane repeats the appearance of the one before
            model = new_thing(config, rng, rng.uniform(0.095, 0.12))
        phases = _phases(config.frames, rng, longest=longest)
        forward = bool(rng.integers(2))
        for member in range(count):
            centers = np.empty((config.frames, 2))
            centers[:, axis] = _ring(phases, pillar, along, model.radius, frames=config.frames,
                                     forward=forward ^ bool(member))
            centers[:, 1 - axis] = (lane + 0.5) / len(members) * across + rng.uniform(-0.15, 0.15) * model.radius
            things.append(replace(model, centers=centers))
    return _shuffled(things, rng), pillar


def _phases(frames: int, rng: np.random.Generator, *, longest: int) -> list[np.ndarray]:
    """Progress (0-1) within each phase; visible and hidden phases alternate. Twins share them, so both hide at once."""
    length = int(rng.integers(3, 6))
    entered = rng.uniform(0.35, 0.55)
    phases = [entered + (1 - entered) * np.arange(length) / length]
    while sum(map(len, phases)) < frames:
        hidden = len(phases) % 2 == 1
        length = int(rng.integers(LONG_HIDING, longest + 1) if hidden else rng.integers(4, 6))
        phases.append((np.arange(length) + 1) / (length + 1))
    return phases


def _ring(phases: list[np.ndarray], pillar: Pillar, along: int, radius: float, *, frames: int,
          forward: bool) -> np.ndarray:
    """Position along the axis, T, through near side, pillar, far side, outside and near side again, or backwards."""
    inside = 0.95 * radius
    outside = 0.95 * radius
    stations = [(-outside, pillar.start + inside), (pillar.start + inside, pillar.end - inside),
                (pillar.end - inside, along + outside), (AWAY * radius, AWAY * radius)]
    path = []
    for index, progress in enumerate(phases):
        start, end = stations[index % 4] if forward else stations[(2 - index) % 4][::-1]
        path.append(start + (end - start) * progress)
    return np.concatenate(path)[:frames]


def _reappear_things(config: SyntheticConfig, rng: np.random.Generator) -> Things:
    """Two or three things of one class and size, each with a colour and a texture of its own; no pillar.

    All are seen for 3 to 5 frames, each in a quarter of the frame, then all are away for 4 or 5 frames, and come back
    in other quarters.
    """
    side = min(config.height, config.width)
    count = int(rng.integers(2, 4))
    model = replace(new_thing(config, rng, rng.uniform(0.11, 0.13)), kind=THINGS[rng.integers(config.things)])
    colors = rng.permutation(THINGS)[:count]
    textures = rng.permutation(TEXTURES)[:count]
    centers = np.full((count, config.frames, 2), AWAY * model.radius)
    quarters = rng.permutation(4)[:count]
    start = 0
    while start < config.frames:
        length = int(rng.integers(3, 6))
        times = np.arange(length)[:, None]
        for index, quarter in enumerate(quarters):
            middle = (np.array(divmod(int(quarter), 2)) + 0.5) / 2 * (config.height, config.width)
            heading = rng.uniform(0, 2 * np.pi)
            drift = rng.uniform(0.01, 0.03) * side * np.array([np.sin(heading), np.cos(heading)])
            path = middle + rng.uniform(-0.06, 0.06, size=2) * side + times * drift
            centers[index, start:start + length] = path[:config.frames - start]
        start += length + int(rng.integers(LONG_HIDING, LONG_HIDING + 2))
        quarters = _other_quarters(quarters, rng)
    return tuple(replace(model, color=np.array(COLORS[color]) + rng.uniform(-10, 10, size=3), texture=str(texture),
                         centers=path) for color, texture, path in zip(colors, textures, centers)), None


def _other_quarters(quarters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A quarter for each thing, none of them the one where it was."""
    while True:
        others = rng.permutation(4)[:len(quarters)]
        if (others != quarters).all():
            return others


def _cross_things(config: SyntheticConfig, rng: np.random.Generator, *,
                  speed: tuple[float, float] = (0.075, 0.09)) -> Things:
    """Twins that are behind a wide pillar in the middle of the video, in one of three cases, equally often.

    Against each other on close lanes; side by side; side by side and changing lanes while they hide.
    """
    side = min(config.height, config.width)
    axis = int(rng.integers(2))
    _, across = _along_across(config, axis)
    model = new_thing(config, rng, rng.uniform(0.095, 0.11))
    pace = rng.uniform(*speed) * side                              # pixels a frame
    pillar = _pillar(config, rng, axis, half=pace * rng.uniform(4.1, 4.8) / 2 + 0.9 * model.radius)
    case = ("against", "beside", "changing")[rng.integers(3)]
    lane = rng.uniform(0.14, 0.2) * side
    direction = 1 - 2 * int(rng.integers(2))
    things = []
    for sign in (-1, 1):
        times = np.arange(config.frames) - (config.frames - 1) / 2 + rng.uniform(-0.3, 0.3)    # 0: behind the middle
        forward = direction * (sign if case == "against" else 1)
        share = {"against": 0.3, "beside": 1, "changing": np.clip(times / 4.5, -1, 1)}[case]
        centers = np.empty((config.frames, 2))
        centers[:, axis] = (pillar.start + pillar.end) / 2 + forward * pace * times
        centers[:, 1 - axis] = across / 2 + sign * share * lane
        things.append(replace(model, centers=centers))
    return _shuffled(things, rng), pillar


def _crowd_things(config: SyntheticConfig, rng: np.random.Generator, *, looks: int = 1, members: int = 5,
                  radius: tuple[float, float] = (0.08, 0.095), along: tuple[float, float] = (0.035, 0.065),
                  across: tuple[float, float] = (0, 0.035), half: tuple[float, float] = (0.085, 0.105)) -> Things:
    """looks x members things, equal within a look, that bounce off the frame and pass a pillar that hides them briefly.

    radius, half (of the pillar's width), along and across (per frame): ranges, as fractions of the shorter side.
    """
    side = min(config.height, config.width)
    size = np.array([config.height, config.width])
    axis = int(rng.integers(2))
    pillar = _pillar(config, rng, axis, half=rng.uniform(*half) * side)
    times = np.arange(config.frames)[:, None]
    things = []
    for _ in range(looks):
        model = new_thing(config, rng, rng.uniform(*radius))
        for _ in range(members):
            velocity = np.empty(2)
            velocity[axis] = rng.uniform(*along)
            velocity[1 - axis] = rng.uniform(*across)
            velocity *= side * (1 - 2 * rng.integers(2, size=2))
            start = rng.uniform(model.radius, size - model.radius)
            centers = bounce(start + times * velocity, model.radius, size - model.radius)
            things.append(replace(model, centers=centers))
    return _shuffled(things, rng), pillar


def _mixed_things(config: SyntheticConfig, rng: np.random.Generator) -> Things:
    return things_of(replace(config, preset=MIXED[rng.integers(len(MIXED))]), rng)


def _along_across(config: SyntheticConfig, axis: int) -> tuple[int, int]:
    """Length of the frame along an axis (0: y, 1: x) and across it, pixels."""
    return (config.height, config.width) if axis == 0 else (config.width, config.height)


def _pillar(config: SyntheticConfig, rng: np.random.Generator, axis: int, *, half: float) -> Pillar:
    """A pillar near the middle of the frame. half: of its width, pixels."""
    along, _ = _along_across(config, axis)
    middle = along / 2 + rng.uniform(-0.03, 0.03) * along
    return Pillar(kind=STUFF[config.stuff - 1], axis=axis, start=middle - half, end=middle + half)


def _shuffled(things: list[Thing], rng: np.random.Generator) -> tuple[Thing, ...]:
    """The things in a random order, so that none is always the nearest."""
    return tuple(things[index] for index in rng.permutation(len(things)))


WORLDS: dict[str, Callable[[SyntheticConfig, np.random.Generator], Things]] = {
    "easy": easy_things, "hard": _hard_things, "long": partial(_hard_things, longest=2 * LONG_HIDING + 1),
    "reappear": _reappear_things, "cross": _cross_things, "camera": partial(_cross_things, speed=(0.05, 0.065)),
    "crowd": _crowd_things,
    "many": partial(_crowd_things, looks=5, members=4, radius=(0.05, 0.06), along=(0.015, 0.035), across=(0, 0.025),
                    half=(0.06, 0.075)),
    "mixed": _mixed_things,
}
FEWEST_FRAMES = {"hard": 3 * LONG_HIDING, "reappear": 3 * LONG_HIDING, "cross": 3 * LONG_HIDING,
                 "camera": 3 * LONG_HIDING, "mixed": 3 * LONG_HIDING,
                 "long": 8 * LONG_HIDING}        # seen, hidden, seen, away, seen


def things_of(config: SyntheticConfig, rng: np.random.Generator) -> Things:
    """The things of one video of a preset, nearest first, and the pillar in front of them."""
    return WORLDS[config.preset](config, rng)
