"""COCO video json (CocoVID): images with video_id and frame_id, and one annotation per object and image.

It is read as the YouTube-VIS json that holds the same: an annotation per track, with a mask for every frame. Source:
the format of mmtracking, `docs/dataset_prepare`; CVAT and other tools export it with track_id for instance_id.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline.datasets.json_entries import Entry, whole_number, whole_or_text
from pipeline.errors import BadInput

TRACK_FIELDS = ("instance_id", "track_id")


def is_coco_video(file: Entry) -> bool:
    """Whether a json lists images of videos, and no video lists its own file names."""
    videos = file.values.get("videos")
    return (isinstance(file.values.get("images"), list) and isinstance(videos, list)
            and not any(isinstance(video, dict) and "file_names" in video for video in videos))


@dataclass
class Faults:
    """Entries that cannot be read."""

    by_video: dict[int | str, BadInput] = field(default_factory=dict)      # id of a video -> its first fault
    by_frame: dict[tuple[int | str, int], BadInput] = field(default_factory=dict)       # the same, of its labels
    of_no_video: int = 0
    strays: int = 0             # images that can be read, of a video that is not listed

    @contextmanager
    def of(self, video: int | str | None, frame: int | None = None) -> Iterator[None]:
        """Keep what is raised inside as a fault of this video, or of its frame."""
        try:
            yield
        except BadInput as error:
            if video is None:
                self.of_no_video += 1
            elif frame is None:
                self.by_video.setdefault(video, error)
            else:
                self.by_frame.setdefault((video, frame), error)

    def of_frames(self, video: int | str) -> dict[int, BadInput]:
        """Frame of a video -> the first fault of its label."""
        return {frame: error for (of_video, frame), error in self.by_frame.items() if of_video == video}


def as_youtube_vis(file: Entry) -> tuple[dict[str, Any], Faults]:
    """The same content as a YouTube-VIS json, and the videos and frames that have a faulty image or annotation.

    An image or annotation of no listed video is left out, or keeps an unknown video, and is counted as such. A faulty
    entry among the videos, and a faulty name of a file, stay as they are, for the reader of YouTube-VIS to name.
    """
    faults = Faults()
    images = defaultdict(list)
    for values in file.list("images"):
        with faults.of(_id(values, "video_id")):
            image = file.part(values, "image")
            images[image.key("video_id")].append(image)
    videos = [_video(values, images) for values in file.list("videos")]
    listed_ids = {_id(values, "id") for values in file.list("videos")}
    faults.strays = sum(len(listed) for video, listed in images.items() if video not in listed_ids)
    content = {**file.values, "videos": videos}
    if file.values.get("annotations") is not None:
        place = _places(images, faults)
        content["annotations"] = _tracks(file, place, {video: len(images[video]) for video in images}, faults)
    return content, faults


def _places(images: Mapping[int | str, list[Entry]], faults: Faults) -> dict[int | str, tuple[int | str, int]]:
    """Id of each image -> its video and frame. Frames whose id is none, or that of another image, are faults."""
    place: dict[int | str, tuple[int | str, int]] = {}
    for video, listed in images.items():
        for frame, image in enumerate(_in_order(listed)):
            with faults.of(video, frame):
                first = place.setdefault(image.key("id"), (video, frame))
                if first != (video, frame):
                    twice = image.bad(f"{image.name} is listed twice, so nothing tells which labels are its own.",
                                      "duplicate-id")
                    faults.by_frame.setdefault(first, twice)
                    raise twice
    return place


def _video(values: Any, images: Mapping[int | str, list[Entry]]) -> Any:
    """The size is that of the first image that has one; the others are compared when they are read."""
    id = _id(values, "id")
    if id is None:
        return values
    ordered = _in_order(images.get(id, []))
    size: dict[str, int] = {}
    for image in ordered:
        with suppress(BadInput):
            size = size or dict(zip(("height", "width"), image.size()))
    return {"id": id, "file_names": [image.values.get("file_name") for image in ordered], **size}


def _id(values: Any, name: str) -> int | str | None:
    """An id among the fields of an entry; None where there is none."""
    return whole_or_text(values.get(name)) if isinstance(values, dict) else None


def _in_order(images: list[Entry]) -> list[Entry]:
    """The images of a video by frame_id; in the order of the json where not every one has its own."""
    numbers = [whole_number(image.values.get("frame_id")) for image in images]
    if None in numbers or len(set(numbers)) < len(numbers):
        return images
    return [image for _, image in sorted(zip(numbers, images), key=lambda pair: pair[0])]


def _tracks(file: Entry, place: dict[int | str, tuple[int | str, int]], lengths: dict[int | str, int],
            faults: Faults) -> list[dict[str, Any]]:
    """One annotation per video and track; one without an image of the json keeps an unknown video, and is counted."""
    tracks = defaultdict(list)
    for values in file.list("annotations"):
        video, frame = place.get(_id(values, "image_id"), (None, 0))
        with faults.of(video, frame):
            entry = file.part(values, "annotation")
            track = entry.key(next((name for name in TRACK_FIELDS if name in entry.values), TRACK_FIELDS[0]))
            kind = entry.key("category_id"), entry.flag("iscrowd")
            tracks[video, track].append((frame, entry, kind))
    rows = [_row(video, track, shown, lengths.get(video, 0), faults) for (video, track), shown in tracks.items()]
    if any(not isinstance(row["id"], int) or row["id"] < 1 for row in rows):    # ids from 0, or texts
        for id, row in enumerate(rows, 1):
            row["id"] = id
    return rows


def _row(video: int | str | None, track: int | str, shown: list[tuple[int, Entry, tuple[int | str, bool]]], length: int,
         faults: Faults) -> dict[str, Any]:
    """The row of a track, of the category and crowd flag that most of its annotations have, the first among equals.

    shown: frame, annotation, and its category and crowd flag. faults: gets the frames of the others.
    """
    (category, is_crowd), _ = Counter(kind for _, _, kind in shown).most_common(1)[0]
    row = {"id": track, "video_id": video, "category_id": category, "iscrowd": is_crowd,
           "segmentations": [None] * length, "bboxes": [None] * length}
    for frame, entry, kind in shown if video is not None else ():
        with faults.of(video, frame):
            if kind != (category, is_crowd):
                raise entry.bad(f"{entry.name}: track {track} has the category {kind[0]!r} and iscrowd {kind[1]:d} in "
                                f"this image, but {category!r} and {is_crowd:d} in most.", "inconsistent-id")
            if row["segmentations"][frame] or row["bboxes"][frame]:
                raise entry.bad(f"{entry.name}: track {track} has two annotations in one image.", "duplicate-id")
            row["segmentations"][frame] = entry.values.get("segmentation")
            row["bboxes"][frame] = entry.values.get("bbox") or True     # it is counted where it has no mask either
    return row
