"""Frames with their labels drawn over them, as shards would store both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.contracts import VideoSegment
from model.labels import VOID, ClassTable, panoptic_id
from pipeline.images import decode_image
from pipeline.shards.label_png import decode_label
from pipeline.visualise.drawing import enlarged, readable_scale
from pipeline.visualise.overlay import beside, overlay


def labelled_picture(image: bytes, label: bytes, meta: Mapping[str, Any], classes: ClassTable) -> np.ndarray:
    """A frame beside the same frame with its labels: H W 3 uint8.

    image, label: the members of a stored clip; meta: its `meta.json`. Where objects overlap, the smaller id is below.
    """
    frame = decode_image(image)
    segments, table = _segments(meta["segments"], classes)
    for overlap in meta["overlaps"]:
        table[overlap["id"]] = table[max(overlap["segments"])]
    stored = decode_label(label)
    ids = np.array([table.get(id, VOID) for id in range(int(stored.max()) + 1)], np.int32)[stored]
    scale = readable_scale(*frame.shape[:2])
    frame = enlarged(frame, scale)
    return beside([frame, overlay(frame, enlarged(ids, scale), segments, classes)], titles=("frame", "labels"))


def _segments(rows: Sequence[Mapping[str, Any]],
              classes: ClassTable) -> tuple[dict[int, VideoSegment], dict[int, int]]:
    """The segments by panoptic id, and the panoptic id of each stored id. Things are numbered 1, 2, ... per class."""
    segments: dict[int, VideoSegment] = {}
    table: dict[int, int] = {}
    for row in rows:
        class_index = row["class_index"]
        number = 0
        if classes.is_thing[class_index]:
            number = 1 + sum(segment.class_index == class_index for segment in segments.values())
        table[row["id"]] = int(panoptic_id(class_index, number))
        segments[table[row["id"]]] = VideoSegment(class_index=class_index, track=number)
    return segments, table
