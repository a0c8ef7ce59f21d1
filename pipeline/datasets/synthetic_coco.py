"""The synthetic world in COCO's layout: stills of different sizes, with panoptic and with instance labels."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from model.labels import ClassTable
from pipeline.datasets.id_maps import IdGenerator, rgb_of_ids
from pipeline.datasets.synthetic_drawing import draw
from pipeline.datasets.synthetic_scene import Scene
from pipeline.datasets.synthetic_things import STUFF
from pipeline.images import encode_jpeg, encode_png


def write_coco_split(root: Path, split: str, scenes: Iterable[tuple[str, Scene, np.random.Generator]], *,
                     classes: ClassTable, quality: int) -> None:
    """One split: <split>2017/, panoptic_<split>2017/ and the two json files. Only the first frame of a scene is drawn.

    Instance masks are run lengths of the visible part.
    """
    images = root / f"{split}2017"
    labels = root / f"panoptic_{split}2017"
    annotations = root / "annotations"
    for folder in (images, labels, annotations):
        folder.mkdir(exist_ok=True)
    categories = [{"id": info.dataset_id, "name": info.name, "isthing": int(info.is_thing), "color": list(info.color)}
                  for info in classes.classes]
    panoptic = {"images": [], "annotations": [], "categories": categories}
    instances = {"images": panoptic["images"], "annotations": [],
                 "categories": [{"id": row["id"], "name": row["name"]} for row in categories if row["isthing"]]}
    for image_id, (name, scene, rng) in enumerate(scenes, 1):
        image, label = next(draw(scene))
        segments = _visible_segments(label, scene, classes, IdGenerator(classes, rng))
        (images / f"{name}.jpg").write_bytes(encode_jpeg(image, quality=quality))
        (labels / f"{name}.png").write_bytes(encode_png(rgb_of_ids(_ids(label, segments))))
        panoptic["images"].append({"id": image_id, "file_name": f"{name}.jpg", "height": scene.height,
                                   "width": scene.width})
        panoptic["annotations"].append({"image_id": image_id, "file_name": f"{name}.png", "segments_info": [
            {key: segment[key] for key in ("id", "category_id", "iscrowd", "area")} for segment in segments.values()]})
        for value, segment in segments.items():
            if value >= len(STUFF):
                packed = coco.encode(np.asfortranarray(label == value).astype(np.uint8))
                instances["annotations"].append({
                    **segment, "id": len(instances["annotations"]) + 1, "image_id": image_id,
                    "segmentation": {"size": packed["size"], "counts": packed["counts"].decode()}})
    (annotations / f"panoptic_{split}2017.json").write_text(json.dumps(panoptic))
    (annotations / f"instances_{split}2017.json").write_text(json.dumps(instances))


def _visible_segments(label: np.ndarray, scene: Scene, classes: ClassTable,
                      generator: IdGenerator) -> dict[int, dict]:
    """Value of the drawn label -> its segment, for all values that have pixels."""
    index_of = {info.name: index for index, info in enumerate(classes.classes)}
    kinds = [*STUFF, *(thing.kind for thing in scene.things)]      # by value of the drawn label
    values, areas = np.unique(label, return_counts=True)
    return {value: {"id": generator.new_id(index_of[kinds[value]]), "iscrowd": 0, "area": area,
                    "category_id": classes.classes[index_of[kinds[value]]].dataset_id}
            for value, area in zip(values.tolist(), areas.tolist())}


def _ids(label: np.ndarray, segments: dict[int, dict]) -> np.ndarray:
    lookup = np.zeros(max(segments) + 1, dtype=np.int64)
    for value, segment in segments.items():
        lookup[value] = segment["id"]
    return lookup[label]
