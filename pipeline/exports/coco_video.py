"""All videos in one json as YouTube-VIS has them (COCO's json with videos in place of images).

    coco_video.json     {videos, categories, annotations}; an annotation is a track, with its score
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from pipeline.exports.tracked_video import TrackedVideo
from pipeline.files import atomic_write, canonical_json

FILE = "coco_video.json"


def write_coco_video(videos: Iterable[TrackedVideo], folder: Path) -> list[Path]:
    """Write one json of all videos."""
    listed: list[dict[str, Any]] = []
    tracks: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] = []
    for number, video in enumerate(videos, 1):
        height, width = video.size
        listed.append({"id": number, "name": video.video, "height": height, "width": width,
                       "length": len(video.frames), "file_names": [f"{video.video}/{name}" for name in video.frames]})
        categories = [{"id": info.dataset_id, "name": info.name, "isthing": int(info.is_thing),
                       "color": list(info.color)} for info in video.classes.classes]
        tracks.extend(_annotation(row, video, number) for row in video.objects)
    content = {"videos": listed, "categories": categories,
               "annotations": [{"id": number, **track} for number, track in enumerate(tracks, 1)]}
    atomic_write(folder / FILE, canonical_json(content))
    return [folder / FILE]


def _annotation(row: dict[str, Any], video: TrackedVideo, number: int) -> dict[str, Any]:
    masks = row["masks"]
    height, width = video.size
    return {"video_id": number, "category_id": row["category_id"], "iscrowd": 0, "height": height, "width": width,
            "length": len(masks), "segmentations": masks, "score": row["score"], "track": row["track"],
            "bboxes": [mask and [int(value) for value in coco.toBbox(mask)] for mask in masks],
            "areas": [mask and int(coco.area(mask)) for mask in masks]}
