"""The synthetic world in the layouts that have label maps and no json of segments: VSPW and KITTI-STEP."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from model.labels import ClassTable
from pipeline.datasets.synthetic_drawing import draw
from pipeline.datasets.synthetic_scene import Scene
from pipeline.datasets.synthetic_things import STUFF
from pipeline.images import encode_jpeg, encode_png

Scenes = Iterable[tuple[str, Scene, np.random.Generator]]


def write_vspw_split(root: Path, split: str, scenes: Scenes, *, classes: ClassTable, quality: int) -> None:
    """One split: data/<video>/origin, data/<video>/mask, <split>.txt."""
    _write_categories(root, classes)
    names = []
    for name, scene, _ in scenes:
        names.append(name)
        frames, masks = (root / "data" / name / kind for kind in ("origin", "mask"))
        for folder in (frames, masks):
            folder.mkdir(parents=True)
        class_ids = _class_ids(scene, classes)
        for time, (image, label) in enumerate(draw(scene)):
            (frames / f"{time:08d}.jpg").write_bytes(encode_jpeg(image, quality=quality))
            (masks / f"{time:08d}.png").write_bytes(encode_png(class_ids[label] + 1))
    (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def write_kitti_step_split(root: Path, split: str, scenes: Scenes, *, classes: ClassTable) -> None:
    """One split: images/<split> as PNGs and panoptic_maps/<split>. The things of a sequence are numbered from 1."""
    _write_categories(root, classes)
    for name, scene, _ in scenes:
        frames, maps = (root / kind / split / name for kind in ("images", "panoptic_maps"))
        for folder in (frames, maps):
            folder.mkdir(parents=True)
        class_ids = _class_ids(scene, classes)
        instances = np.maximum(np.arange(len(class_ids)) - len(STUFF) + 1, 0)
        codes = np.stack([class_ids, instances >> 8, instances & 255], axis=1).astype(np.uint8)
        for time, (image, label) in enumerate(draw(scene)):
            (frames / f"{time:06d}.png").write_bytes(encode_png(image))
            (maps / f"{time:06d}.png").write_bytes(encode_png(codes[label]))


def _class_ids(scene: Scene, classes: ClassTable) -> np.ndarray:
    """Value of the drawn label -> id of its class in the data set, uint8; 0 for stuff that the world does not have."""
    id_of = {info.name: info.dataset_id for info in classes.classes}
    kinds = [*STUFF, *(thing.kind for thing in scene.things)]
    return np.array([id_of.get(kind, 0) for kind in kinds], dtype=np.uint8)


def _write_categories(root: Path, classes: ClassTable) -> None:
    rows = [{"id": info.dataset_id, "name": info.name, "isthing": int(info.is_thing), "color": list(info.color)}
            for info in classes.classes]
    (root / "categories.json").write_text(json.dumps(rows))
