"""The contents of a synthetic video before it is drawn: things, stuff, camera and light.

The preset `easy` tests segmentation; identities are rarely lost. The others are described in `synthetic_identity.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.datasets.synthetic_identity import things_of
from pipeline.datasets.synthetic_things import STUFF, Pillar, Thing

if TYPE_CHECKING:
    from pipeline.datasets.synthetic import SyntheticConfig


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
class Scene:
    """One video before it is drawn."""

    height: int
    width: int
    things: tuple[Thing, ...]      # nearest first
    bands: tuple[Band, ...]        # top to bottom
    pillar: Pillar | None
    camera: np.ndarray             # T 2, (y, x) in pixels: where the frame lies in the world
    zoom: np.ndarray               # T, around the middle of the frame; 1: none
    light: np.ndarray              # T, gain around 1
    grain: np.ndarray              # T 2, where the noise of a frame is cut from the tile
    texture_seed: int


def make_scene(config: SyntheticConfig, rng: np.random.Generator) -> Scene:
    """Draw one random video."""
    times = np.arange(config.frames)
    side = min(config.height, config.width)
    things, pillar = things_of(config, rng)
    sway = [np.sin(rng.uniform(0.1, 0.35) * times + rng.uniform(0, 2 * np.pi)) for _ in range(3)]
    scene = Scene(height=config.height, width=config.width, things=things, bands=_bands(config, rng), pillar=pillar,
                  camera=config.camera * side * np.stack(sway[:2], axis=1), zoom=np.ones(config.frames),
                  light=1 + config.light * sway[2], grain=rng.integers(0, 16, size=(config.frames, 2)),
                  texture_seed=int(rng.integers(1 << 31)))
    return _filmed(scene, rng) if config.preset == "camera" else scene


def _filmed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same scene under a camera that pans, about half as fast as its things move, and zooms."""
    times = np.arange(len(scene.camera))
    side = min(scene.height, scene.width)
    waves = [np.sin(rng.uniform(0.25, 0.45) * times + rng.uniform(0, 2 * np.pi)) for _ in range(3)]
    pan = rng.uniform(0.06, 0.1, size=2) * side
    return replace(scene, camera=scene.camera + pan * np.stack(waves[:2], axis=1),
                   zoom=np.exp(rng.uniform(0.06, 0.14) * waves[2]))


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
