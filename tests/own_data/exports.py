"""The same videos as different tools export them: written from a YouTube-VIS world, mask by mask."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from pipeline.datasets import DatasetConfig, open_dataset
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.images import encode_png
from pipeline.records import Dataset, VideoRecord
from tests.own_data.worlds import SOURCES

SPLITS = {"train": "train", "valid": "val"}     # of the world -> of the export


def export(tool: str, world: Path, root: Path) -> Path:
    """Write every video of a YouTube-VIS world as a tool would, with the splits train and val; returns `root`."""
    for split, ours in SPLITS.items():
        dataset = YouTubeVis(str(world), split=split)
        names = [info.name for info in dataset.classes.classes]
        for video_id in dataset.video_ids():
            TOOLS[tool](root, ours, dataset.read(video_id), names)
    if tool == "davis":
        for ours in SPLITS.values():
            (root / "ImageSets" / "2017" / f"{ours}.txt").write_text(
                "\n".join(path.name for path in sorted((root / "JPEGImages" / "480p").glob(f"{ours[:3]}*"))))
    return root


@dataclass(frozen=True)
class Exported:
    """An export and the json of it that a fuzz changes, as a `Source` of worlds."""

    tool: str
    json: str       # in its folder

    def write(self, root: Path) -> Path:
        """Write two videos for training and one for validation, of three frames."""
        return export(self.tool, SOURCES["youtube_vis"].write(root.with_name("world of youtube_vis")), root)

    def open(self, root: Path, split: str = "train") -> Dataset:
        """The reader."""
        return open_dataset(DatasetConfig(name=self.tool.split()[0], root=str(root), split=split))


EXPORTS = {
    "labelme": Exported("labelme", "train/train_00000/0.json"),
    "cvat coco": Exported("cvat coco", "train/train_00000/annotations/instances_default.json"),
    "davis": Exported("davis", "meta.json"),
}


def cvat_xml(root: Path, split: str, video: VideoRecord, names: list[str]) -> None:
    folder = root / split / video.video_id
    _pictures(video, folder / "images", "frame_{:06d}")
    tracks = []
    for segment in video.segments:
        shapes = []
        for frame, masks in enumerate(frame.masks for frame in video.frames):
            if segment.id in masks:
                left, top, inside = _cut(masks[segment.id])
                shapes.append(f'<mask frame="{frame}" keyframe="1" outside="0" occluded="0" '
                              f'rle="{", ".join(map(str, _runs(inside)))}" left="{left}" top="{top}" '
                              f'width="{inside.shape[1]}" height="{inside.shape[0]}" z_order="0"></mask>')
            else:
                shapes.append(f'<mask frame="{frame}" outside="1" rle="1" left="0" top="0" width="1" height="1"/>')
        tracks.append(f'<track id="{segment.id - 1}" label="{names[segment.class_index]}" source="manual">'
                      f'{"".join(shapes)}</track>')
    labels = "".join(f"<label><name>{name}</name><color>#ff0000</color></label>" for name in names)
    (folder / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>{labels}'
        f'</labels></task></meta>{"".join(tracks)}</annotations>')


def cvat_coco(root: Path, split: str, video: VideoRecord, names: list[str]) -> None:
    folder = root / split / video.video_id
    _pictures(video, folder / "images" / "default", "frame_{:06d}")
    images = [{"id": index + 1, "file_name": f"frame_{index:06d}.jpg", "height": video.height, "width": video.width}
              for index in range(len(video.frames))]
    annotations = [{"image_id": index + 1, "category_id": segment.class_index + 1, "iscrowd": 0,
                    "segmentation": _plain(frame.masks[segment.id]), "bbox": [0, 0, 1, 1],
                    "attributes": {"occluded": False, "track_id": segment.id, "keyframe": True}}
                   for index, frame in enumerate(video.frames) for segment in video.segments
                   if segment.id in frame.masks]
    _save(folder / "annotations" / "instances_default.json", {
        "images": images, "annotations": [{"id": id, **values} for id, values in enumerate(annotations, 1)],
        "categories": [{"id": id, "name": name, "supercategory": ""} for id, name in enumerate(names, 1)]})


def labelme(root: Path, split: str, video: VideoRecord, names: list[str]) -> None:
    folder = root / split / video.video_id
    _pictures(video, folder, "{}")
    for index, frame in enumerate(video.frames):
        shapes = []
        for segment in video.segments:
            if segment.id in frame.masks:
                left, top, inside = _cut(frame.masks[segment.id])
                corners = [[left, top], [left + inside.shape[1] - 1, top + inside.shape[0] - 1]]
                shapes.append({"label": names[segment.class_index], "group_id": segment.id, "shape_type": "mask",
                               "points": corners, "flags": {},
                               "mask": base64.b64encode(encode_png(inside.astype(np.uint8) * 255)).decode()})
        _save(folder / f"{index}.json", {"version": "5.5.0", "flags": {}, "shapes": shapes, "imageData": None,
                                         "imagePath": f"{index}.jpg", "imageHeight": video.height,
                                         "imageWidth": video.width})


def davis(root: Path, split: str, video: VideoRecord, names: list[str]) -> None:
    name = f"{split}_{video.video_id.split('_')[1]}"
    _pictures(video, root / "JPEGImages" / "480p" / name, "{:05d}")
    folder = root / "Annotations" / "480p" / name
    folder.mkdir(parents=True)
    for index, frame in enumerate(video.frames):
        ids = np.zeros((video.height, video.width), np.uint8)
        for id, mask in frame.masks.items():
            ids[run_lengths.decode(mask) > 0] = id
        picture = Image.fromarray(ids, mode="P")
        picture.putpalette([number * 37 % 256 for number in range(768)])
        picture.save(folder / f"{index:05d}.png")
    meta = root / "meta.json"
    content = json.loads(meta.read_text()) if meta.exists() else {"videos": {}}
    content["videos"][name] = {"objects": {str(segment.id): {"category": names[segment.class_index], "frames": []}
                                           for segment in video.segments}}
    _save(meta, content)
    (root / "ImageSets" / "2017").mkdir(parents=True, exist_ok=True)


TOOLS: dict[str, Callable[[Path, str, VideoRecord, list[str]], None]] = {
    "cvat": cvat_xml, "cvat coco": cvat_coco, "labelme": labelme, "davis": davis}


def _pictures(video: VideoRecord, folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    for index, frame in enumerate(video.frames):
        shutil.copy(frame.image, folder / f"{name.format(index)}.jpg")


def _cut(mask: dict) -> tuple[int, int, np.ndarray]:
    """Left, top, and the mask inside its box."""
    pixels = run_lengths.decode(mask)
    rows = np.flatnonzero(pixels.any(axis=1))
    columns = np.flatnonzero(pixels.any(axis=0))
    return int(columns[0]), int(rows[0]), pixels[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def _runs(inside: np.ndarray) -> list[int]:
    """Lengths of runs over the rows, background first."""
    flat = np.concatenate([[0], inside.ravel(), [2]])
    ends = np.flatnonzero(np.diff(flat.astype(int)))
    return np.diff([0, *ends]).tolist()


def _plain(mask: dict) -> dict[str, Any]:
    return {"size": list(map(int, mask["size"])), "counts": mask["counts"].decode()}


def _save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
