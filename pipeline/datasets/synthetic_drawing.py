"""Pixels of a synthetic scene. Image and label of a frame are painted with the same masks, so they agree exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pipeline.datasets.synthetic_scene import Scene
from pipeline.datasets.synthetic_things import COLORS, STUFF, Pillar, Thing

GRAIN = 16    # pixels by which the noise tile exceeds a frame


def draw(scene: Scene) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields per frame: image H W 3 uint8 RGB, label H W uint8 (position in STUFF, or len(STUFF) + index of thing).

    A thing of which almost nothing is visible is not drawn, since nobody could label it.
    """
    rng = np.random.default_rng(scene.texture_seed)
    noise = rng.normal(0, 4, size=(scene.height + GRAIN, scene.width + GRAIN)).astype(np.float32)
    soil = _soil(scene, rng)
    for time in range(len(scene.light)):
        label = _stuff_label(scene, time)
        taken = None if scene.pillar is None else _pillar_mask(scene.pillar, scene, time)
        if taken is None:
            taken = np.zeros_like(label, dtype=bool)
        else:
            label[taken] = STUFF.index(scene.pillar.kind)
        image = _stuff_image(scene, label, soil, time)
        for index, thing in enumerate(scene.things):
            _paint(image, label, taken, _in_view(thing, scene, time), time, len(STUFF) + index)
        y, x = scene.grain[time]
        image *= scene.light[time]
        image += noise[y:y + scene.height, x:x + scene.width, None]
        yield np.clip(image, 0, 255).astype(np.uint8), label


def _soil(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Coarse and fine brightness noise, larger than the frame so that the camera can move over it."""
    coarse = max(2, min(scene.height, scene.width) // 24)
    tall = scene.height + 2 * _reach(scene)
    wide = scene.width + 2 * _reach(scene)
    blocks = rng.uniform(-1, 1, size=(tall // coarse + 1, wide // coarse + 1)).astype(np.float32)
    fine = rng.uniform(-1, 1, size=(tall, wide)).astype(np.float32)
    return 1 + 0.18 * np.kron(blocks, np.ones((coarse, coarse), np.float32))[:tall, :wide] + 0.12 * fine


def _reach(scene: Scene) -> int:
    """Pixels by which the camera looks beyond the borders of the world."""
    wider = max(scene.height, scene.width) / 2 * (1 / scene.zoom - 1).max()
    return int(np.ceil(np.abs(scene.camera).max() + max(wider, 0)))


def _line(scene: Scene, axis: int, time: int) -> np.ndarray:
    """Where each row (axis 0) or column (axis 1) of a frame lies in the world, but for the place of the camera."""
    size = (scene.height, scene.width)[axis]
    pixels = np.arange(size)
    return pixels + (1 / scene.zoom[time] - 1) * (pixels - size / 2)


def _in_view(thing: Thing, scene: Scene, time: int) -> Thing:
    """The thing with its place and size in a frame instead of the world."""
    zoom = scene.zoom[time]
    place = thing.centers[time] - scene.camera[time]
    place = place + (zoom - 1) * (place - np.array([scene.height, scene.width]) / 2)
    centers = thing.centers.copy()
    centers[time] = place
    return replace(thing, centers=centers, radius=thing.radius * zoom)


def _stuff_label(scene: Scene, time: int) -> np.ndarray:
    y, x = scene.camera[time]
    rows = _line(scene, 0, time)[:, None] + y
    columns = _line(scene, 1, time) + x
    label = np.full((scene.height, scene.width), STUFF.index(scene.bands[0].kind), dtype=np.uint8)
    for band in scene.bands[1:]:
        wave = band.amplitude * np.sin(band.wavenumber * columns + band.speed * time + band.phase)
        label[rows >= band.height + wave] = STUFF.index(band.kind)
    return label


def _pillar_mask(pillar: Pillar, scene: Scene, time: int) -> np.ndarray:
    line = _line(scene, pillar.axis, time) + scene.camera[time][pillar.axis]
    inside = (line >= pillar.start) & (line <= pillar.end)
    return np.broadcast_to(inside[:, None] if pillar.axis == 0 else inside, (scene.height, scene.width)).copy()


def _stuff_image(scene: Scene, label: np.ndarray, soil: np.ndarray, time: int) -> np.ndarray:
    """H W 3 float32: the class colour times a brightness texture."""
    unit = min(scene.height, scene.width) / 96
    y, x = scene.camera[time]
    down, right = (_line(scene, axis, time) for axis in (0, 1))
    rows = (down.astype(np.float32)[:, None] + np.float32(y)) / unit    # in 96ths of the side
    columns = (right.astype(np.float32) + np.float32(x)) / unit
    image = np.empty((scene.height, scene.width, 3), dtype=np.float32)
    for kind in np.unique(label):
        match STUFF[kind]:
            case "sky":
                light = 0.8 + 0.4 * rows / 96 + 0 * columns
            case "water":
                light = 1 + 0.3 * np.sin(1.3 * rows + 0.8 * np.sin(0.15 * columns + 0.3 * time) + 0.5 * time)
            case "ground":
                light = soil[np.ix_(*(_reach(scene) + np.rint(line).astype(int) for line in (down + y, right + x)))]
            case "wall":
                light = 1 - 0.3 * (rows % 8 < 1.5) - 0.2 * ((columns + 5 * (rows // 8 % 2)) % 12 < 1.5)
        mask = label == kind
        image[mask] = light[mask][:, None] * np.array(COLORS[STUFF[kind]], dtype=np.float32)
    return image


def _paint(image: np.ndarray, label: np.ndarray, taken: np.ndarray, thing: Thing, time: int, value: int) -> None:
    """Paint the part of a thing, as it lies in the frame, that no nearer thing covers, and mark its pixels as taken."""
    y, x = thing.centers[time]
    reach = 1.2 * thing.radius
    top = max(0, int(y - reach))
    left = max(0, int(x - reach))
    box = np.s_[top:max(0, int(y + reach) + 2), left:max(0, int(x + reach) + 2)]
    if label[box].size == 0:
        return
    rows = (np.arange(top, top + label[box].shape[0], dtype=np.float32)[:, None] - y) / thing.radius
    columns = (np.arange(left, left + label[box].shape[1], dtype=np.float32) - x) / thing.radius
    sine = np.sin(thing.angle[time])
    cosine = np.cos(thing.angle[time])
    # coordinates that turn with the thing, in radii
    u = cosine * columns + sine * rows
    v = cosine * rows - sine * columns
    visible = _shape(thing.kind, u, v) & ~taken[box]
    if visible.sum() < max(4, 0.2 * thing.radius ** 2):
        return
    light = _texture(thing.texture, u[visible], v[visible])
    image[box][visible] = light[:, None] * thing.color
    label[box][visible] = value
    taken[box] |= visible


def _shape(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether each point, given in radii from the centre, belongs to the thing."""
    match kind:
        case "disc":
            return u * u + v * v <= 1
        case "square":
            return np.maximum(np.abs(u), np.abs(v)) <= 0.82
        case "triangle":
            return np.maximum(v, 0.866 * np.abs(u) - 0.5 * v) <= 0.58
        case "cross":
            return (np.minimum(np.abs(u), np.abs(v)) <= 0.36) & (np.maximum(np.abs(u), np.abs(v)) <= 1)


def _texture(texture: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Brightness at points given in radii."""
    match texture:
        case "plain":
            return np.ones_like(u)
        case "stripes":
            return 1 + 0.25 * np.sign(np.sin(6 * u))
        case "checks":
            return 1 + 0.25 * np.sign(np.sin(5 * u) * np.sin(5 * v))
