"""An XML for each video, as CVAT imports it under the name "CVAT for video 1.1".

    cvat/<video>.xml    a track for each object, with a mask in every frame in which it is seen
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from pycocotools import mask as coco

from pipeline.exports.tracked_video import TrackedVideo, in_its_box
from pipeline.file_names import name_for
from pipeline.files import atomic_write

FOLDER = "cvat"


def write_cvat_videos(videos: Iterable[TrackedVideo], folder: Path) -> list[Path]:
    """Write an XML for each video."""
    files = []
    for video in videos:
        root = Element("annotations")
        SubElement(root, "version").text = "1.1"
        _add_task(SubElement(SubElement(root, "meta"), "task"), video)
        for number, row in enumerate(video.objects):
            _add_masks(SubElement(root, "track", id=str(number), label=row["class"], source="auto"), row["masks"])
        indent(root)
        files.append(folder / FOLDER / f"{name_for(video.video)}.xml")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        atomic_write(files[-1], tostring(root, encoding="utf-8", xml_declaration=True))
    return files


def _add_task(task: Element, video: TrackedVideo) -> None:
    height, width = video.size
    for name, value in (("name", video.video), ("size", len(video.frames)), ("mode", "interpolation"),
                        ("start_frame", 0), ("stop_frame", len(video.frames) - 1)):
        SubElement(task, name).text = str(value)
    size = SubElement(task, "original_size")
    SubElement(size, "width").text = str(width)
    SubElement(size, "height").text = str(height)
    labels = SubElement(task, "labels")
    for info in video.classes.classes:
        label = SubElement(labels, "label")
        SubElement(label, "name").text = info.name
        SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*info.color)
        SubElement(label, "attributes")


def _add_masks(track: Element, masks: list[dict[str, Any] | None]) -> None:
    """One mask a frame. Where an object disappears, CVAT needs a shape that says so, which is its last one."""
    last: dict[str, str] | None = None
    for frame, mask in enumerate(masks):
        shape = _runs(coco.decode(mask)) if mask is not None else last
        if shape is not None:
            SubElement(track, "mask", frame=str(frame), keyframe="1", outside=str(int(mask is None)), occluded="0",
                       **shape, z_order="0")
        last = None if mask is None else shape


def _runs(mask: np.ndarray) -> dict[str, str]:
    """The lengths of runs over the rows of the box of a mask, background first, and the box. mask: H W uint8."""
    left, top, inside = in_its_box(mask)
    height, width = inside.shape
    ends = np.flatnonzero(np.diff(inside.ravel(), prepend=0, append=2))     # 2: the last run ends with the box
    runs = np.diff(ends, prepend=0)
    return {"rle": ", ".join(map(str, runs)), "left": str(left), "top": str(top), "width": str(width),
            "height": str(height)}
