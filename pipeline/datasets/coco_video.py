"""COCO video json (CocoVID): images with video_id and frame_id, and one annotation per object and image.

It is read as the YouTube-VIS json that holds the same: an annotation per track, with a mask for every frame. Source:
the format of mmtracking, `docs/dataset_prepare`; CVAT and other tools export it with track_id for instance_id.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pipeline.datasets.json_entries import Entry, whole_number
from pipeline.file_names import natural

TRACK_FIELDS = ("instance_id", "track_id")


def is_coco_video(file: Entry) -> bool:
    """Whether a json lists images of videos, and no video lists its own file names."""
    videos = file.values.get("videos")
    return (isinstance(file.values.get("images"), list) and isinstance(videos, list)
            and not any(isinstance(video, dict) and "file_names" in video for video in videos))


def as_youtube_vis(file: Entry) -> dict[str, Any]:
    """The same content as a YouTube-VIS json. Entries that cannot be placed raise BadInput, which names them."""
    images = defaultdict(list)
    for image in file.entries("images", "image"):
        images[image.key("video_id")].append(image)
    videos = [_video(video, images[video.key("id")]) for video in file.entries("videos", "video")]
    place = {image.key("id"): (video["id"], frame) for video in videos
             for frame, image in enumerate(_in_order(images[video["id"]]))}
    content = {**file.values, "videos": videos}
    if file.values.get("annotations") is not None:
        content["annotations"] = _tracks(file, place, {video["id"]: len(video["file_names"]) for video in videos})
    return content


def _video(video: Entry, images: list[Entry]) -> dict[str, Any]:
    """The size is that of the first image; the others are compared when they are read."""
    images = _in_order(images)
    size = dict(zip(("height", "width"), images[0].size())) if images else {}
    return {"id": video.key("id"), "file_names": [image.path("file_name") for image in images], **size}


def _in_order(images: list[Entry]) -> list[Entry]:
    """The images of a video by frame_id; by the numbers in their names where not every one has its own."""
    numbers = [whole_number(image.values.get("frame_id")) for image in images]
    if None in numbers or len(set(numbers)) < len(numbers):
        return sorted(images, key=lambda image: natural(image.path("file_name")))
    return [image for _, image in sorted(zip(numbers, images), key=lambda pair: pair[0])]


def _tracks(file: Entry, place: dict[int | str, tuple[int | str, int]],
            lengths: dict[int | str, int]) -> list[dict[str, Any]]:
    """One annotation per video and track; one without an image of the json keeps an unknown video, and is counted."""
    tracks: dict[tuple, dict[str, Any]] = {}
    for entry in file.entries("annotations", "annotation"):
        field = next((field for field in TRACK_FIELDS if field in entry.values), TRACK_FIELDS[0])
        video, frame = place.get(entry.key("image_id"), (None, 0))
        track = entry.key(field)
        fields = {"category_id": entry.key("category_id"), "iscrowd": entry.flag("iscrowd")}
        first = {"id": track, "video_id": video, **fields, "segmentations": [None] * lengths.get(video, 0),
                 "bboxes": [None] * lengths.get(video, 0)}
        row = tracks.setdefault((video, track), first)
        if any(row[name] != value for name, value in fields.items()):
            raise entry.bad(f"{entry.name}: track {track} changes its category or crowd flag; both must stay the same "
                            "through the video.", "inconsistent-id")
        if video is not None:
            if row["segmentations"][frame] or row["bboxes"][frame]:
                raise entry.bad(f"{entry.name}: track {track} has two annotations in one image.", "duplicate-id")
            row["segmentations"][frame] = entry.values.get("segmentation")
            row["bboxes"][frame] = entry.values.get("bbox")
    rows = list(tracks.values())
    if any(not isinstance(row["id"], int) or row["id"] < 1 for row in rows):    # ids from 0, or texts
        for id, row in enumerate(rows, 1):
            row["id"] = id
    return rows
