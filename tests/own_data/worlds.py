"""Small data sets in every layout, drawn anew; tests change them as people's own data differ."""

from __future__ import annotations

import itertools
import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets import DatasetConfig, open_dataset
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.records import Dataset

SIZE = {"height": 48, "width": 64}
_TIMES = itertools.count(10**9)


@dataclass(frozen=True)
class Source:
    """A data set in one layout, and the json of it that tests change."""

    name: str               # of the data set
    world: str              # layout of the synthetic world
    json: str               # in its folder
    layout: str = "auto"

    def write(self, root: Path, **config: Any) -> Path:
        """Write the world: two videos for training and one for validation, of three frames."""
        config = {"videos_train": 2, "videos_val": 1, "frames": 3, **SIZE, **config}
        write_world(root, SyntheticConfig(layout=self.world, **config))
        if self.json == "coco_video.json":
            edit(root / "train.json", as_coco_video)
            (root / "train.json").rename(root / self.json)
            (root / "train.json").symlink_to(self.json)
        return root

    def open(self, root: Path, split: str = "train") -> Dataset:
        """The reader."""
        return open_dataset(DatasetConfig(name=self.name, root=str(root), split=split, layout=self.layout))


SOURCES = {
    "vipseg": Source("vipseg", "vipseg", "panoptic_gt_VIPSeg_train.json", "rgb"),
    "vipseg categories": Source("vipseg", "vipseg", "panoVIPSeg_categories.json", "raw"),
    "youtube_vis": Source("youtube_vis", "youtube_vis", "train.json"),
    "coco video": Source("youtube_vis", "youtube_vis", "coco_video.json"),
    "vspw categories": Source("vspw", "vspw", "categories.json"),
    "kitti_step categories": Source("kitti_step", "kitti_step", "categories.json"),
    "coco_panoptic": Source("coco_panoptic", "coco", "annotations/panoptic_train2017.json"),
    "coco_instance": Source("coco_instance", "coco", "annotations/instances_train2017.json"),
}


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a json in place, or replace it by what `change` returns."""
    content = json.loads(path.read_text())
    result = change(content)
    save(path, content if result is None else result)


def save(path: Path, content: Any) -> None:
    """Write a json with a new time of change, since the parsed one is kept until that differs."""
    path.write_text(json.dumps(content))
    os.utime(path, ns=(next(_TIMES), next(_TIMES)))


def as_coco_video(content: dict) -> dict:
    """A YouTube-VIS json in the form of a COCO video json."""
    images = []
    image_of = defaultdict(dict)
    for video in content["videos"]:
        for frame, name in enumerate(video["file_names"]):
            image_of[video["id"]][frame] = len(images) + 1
            images.append({"id": len(images) + 1, "video_id": video["id"], "frame_id": frame, "file_name": name,
                           "height": video["height"], "width": video["width"]})
    annotations = [{"image_id": image_of[track["video_id"]][frame], "video_id": track["video_id"],
                    "instance_id": track["id"], "category_id": track["category_id"], "iscrowd": 0, "segmentation": mask}
                   for track in content["annotations"] for frame, mask in enumerate(track["segmentations"]) if mask]
    return {"images": images, "categories": content["categories"],
            "videos": [{"id": video["id"], "name": f"v{video['id']}"} for video in content["videos"]],
            "annotations": [{"id": id, **annotation} for id, annotation in enumerate(annotations, 1)]}
