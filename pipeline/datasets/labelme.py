"""Videos that were labelled with LabelMe: <split>/<video>/<frame>.jpg and, beside each labelled frame, <frame>.json.

An object is told by its label and its group_id, which must be the same in all frames. A frame without json has no label
yet. Source: github.com/wkentaro/labelme, the json that it saves and `shape_to_mask`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipeline.datasets.folders import files_by_stem, load_entry, pictures_by_name, root_folder
from pipeline.datasets.json_entries import Entry, shown
from pipeline.datasets.own_folders import (
    NO_CLASSES,
    all_videos,
    files_beside,
    folder_of_pictures,
    own_classes,
    videos_of,
)
from pipeline.datasets.run_lengths import packed_mask
from pipeline.datasets.tracked_masks import TrackedMasks
from pipeline.errors import BadInput
from pipeline.images import decode_png
from pipeline.records import FrameRecord, Mask, VideoRecord

CURE = "Correct this frame in LabelMe and save it again."
NO_AREA = ("point", "points", "line", "linestrip")
CIRCLE = 64         # corners of the polygon that stands for a circle


class LabelMe:
    """One split; its videos are the folders in the folder of the split.

    Raises `FileNotFoundError` when the root or the split does not exist, `BadInput` for classes that cannot be read.
    """

    def __init__(self, root: str, *, split: str = "train") -> None:
        self.root = root_folder(root, name="labelme")
        self.split = split
        self._folders = videos_of(self.root, split)
        self.classes = own_classes("labelme", self.root, self._labels)
        self._class_of = {info.name: index for index, info in enumerate(self.classes.classes)}

    def video_ids(self) -> list[str]:
        """The names of the folders, sorted."""
        return sorted(self._folders)

    @property
    def remarks(self) -> Mapping[str, int]:
        """Files beside the folders of videos, which are left out."""
        return files_beside(self.root / self.split)

    def read(self, video_id: str) -> VideoRecord:
        """Describe one video; its masks are run lengths.

        A frame whose json cannot be read, is of another size, or holds a shape that is none or of no listed class, has
        no label and is named among the faults. A json without a picture is counted. Raises `BadInput` where all are so,
        and for objects of one class that nothing tells apart.
        """
        folder = folder_of_pictures(video_id, [self._folders.get(video_id, self.root / self.split / video_id)])
        images = pictures_by_name(folder, roots=(self.root,), video=video_id)
        faults: dict[str, BadInput] = {}
        jsons = files_by_stem(folder, (".json",), roots=(self.root,), video=video_id, kind="label", faults=faults)
        orphans = sorted(jsons.keys() - images.keys())
        if orphans and len(orphans) == len(jsons):
            raise BadInput("missing-image", f"{len(orphans)} json files have no picture of the same name.",
                           video=video_id, file=jsons[orphans[0]], cure="Copy the pictures, or remove these files.")
        masks = TrackedMasks(video_id, images)
        if orphans:
            masks.remarks["json files without a picture of the same name"] = len(orphans)
        shapes = self._shapes_of_frames({name: jsons[name] for name in images if name in jsons}, masks, faults)
        self._refuse_alike(shapes)
        for name, listed in shapes.items():
            for index, shape in enumerate(listed):
                try:
                    key = self._key(shape, index, only_frame=len(shapes) == 1)
                    masks.add(name, key, self._class_of[_label(shape)], _mask(shape, masks))
                except BadInput as error:
                    masks.unreadable(name, error)
        return masks.record(shapes)

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """Raises `TypeError`: polygons may overlap. Read `FrameRecord.masks` instead."""
        raise TypeError("labelme has masks as run lengths and no id maps; read FrameRecord.masks")

    def _labels(self) -> list[str]:
        """The labels that any frame of any split uses; what cannot be read is named when its video is."""
        labels = []
        for folder in all_videos(self.root):
            with suppress(BadInput):
                outside: dict[str, BadInput] = {}
                files = files_by_stem(folder, (".json",), roots=(self.root,), video=folder.name, kind="label",
                                      faults=outside)
                for path in (path for name, path in files.items() if name not in outside):
                    with suppress(BadInput):
                        labels += map(_label, load_entry(path, cure=CURE).entries("shapes", "shape"))
        return labels

    def _shapes_of_frames(self, jsons: Mapping[str, Path], masks: TrackedMasks,
                          faults: Mapping[str, BadInput]) -> dict[str, list[Entry]]:
        """The shapes of every labelled frame; none where the json cannot be read, which costs the frame its label."""
        shapes = {}
        for name, path in jsons.items():
            shapes[name] = []
            try:
                if name in faults:
                    raise faults[name]
                shapes[name] = self._shapes(path, masks)
            except BadInput as error:
                masks.unreadable(name, BadInput(error.reason, error.what, video=masks.video_id, file=path,
                                                cure=error.cure))
        return shapes

    def _shapes(self, path: Path, masks: TrackedMasks) -> list[Entry]:
        """The shapes of a frame that are objects; the others are counted."""
        file = load_entry(path, cure=CURE).of_video(masks.video_id)
        told = [file.whole(f"image{side}", least=1) if file.values.get(f"image{side}") is not None else actual
                for side, actual in (("Height", masks.height), ("Width", masks.width))]
        if told != [masks.height, masks.width]:
            raise file.bad(f"the frame was labelled at {told[1]}x{told[0]} pixels, but the video is "
                           f"{masks.width}x{masks.height}.", "size-differs")
        shapes = []
        for shape in file.entries("shapes", "shape"):
            label = _label(shape)
            if label in NO_CLASSES:
                masks.remarks[f"shapes labelled {label}"] += 1
            elif label not in self._class_of:
                raise shape.bad(f"a shape has the label {label!r}, which is not one of the classes "
                                f"{shown(', '.join(self._class_of))}.", "unknown-category")
            elif shape.values.get("shape_type") in NO_AREA:
                masks.remarks["points and lines, which have no area"] += 1
            else:
                shapes.append(shape)
        return shapes

    def _refuse_alike(self, shapes: Mapping[str, list[Entry]]) -> None:
        """Raise BadInput where a frame has two objects of a class without group_id: nothing follows them in time."""
        for name, listed in shapes.items() if len(shapes) > 1 else ():
            alone = [shape for shape in listed if shape.values.get("group_id") is None and self._is_thing(shape)]
            counts = Counter(_label(shape) for shape in alone)
            for label, times in counts.items():
                if times > 1:
                    raise alone[0].bad(f"frame {name!r} has {times} shapes {label!r} without group_id, so nothing "
                                       "tells which object they are in the next frame; give every object a group_id, "
                                       "the same in all frames.", "inconsistent-id")

    def _key(self, shape: Entry, index: int, *, only_frame: bool) -> Hashable:
        label = _label(shape)
        if not self._is_thing(shape):
            return label
        if shape.values.get("group_id") is not None:
            return label, shape.key("group_id")
        return (label, None, index) if only_frame else (label, None)

    def _is_thing(self, shape: Entry) -> bool:
        return bool(self.classes.is_thing[self._class_of[_label(shape)]])


def _label(shape: Entry) -> str:
    """The label without the blanks around it, which nobody sees in LabelMe."""
    return shape.text("label").strip()


def _mask(shape: Entry, masks: TrackedMasks) -> Mask | None:
    """The run lengths of a shape. Raises BadInput, which names its label, for one that is no shape."""
    kind = shape.values.get("shape_type") or "polygon"
    points = shape.list("points")
    try:
        if kind == "mask":
            return _pasted(points, shape.value("mask"), masks)
        if kind != "polygon":
            points = _outline(kind, points)
        return packed_mask(points, height=masks.height, width=masks.width)
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise shape.bad(f"a shape {shape.text('label')!r}: {error}", "bad-mask") from None


def _outline(kind: Any, points: list) -> list[list[float]]:
    """The corners of a rectangle, which is given by two of them, or of a circle, given by its centre and a point."""
    if kind not in ("rectangle", "circle"):
        raise ValueError(f"its shape_type is {shown(kind)}; read are polygon, rectangle, circle and mask.")
    (x1, y1), (x2, y2) = _two(points)
    if kind == "rectangle":
        return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    radius = math.hypot(x2 - x1, y2 - y1)
    turns = [2 * math.pi * corner / CIRCLE for corner in range(CIRCLE)]
    return [[x1 + radius * math.cos(turn), y1 + radius * math.sin(turn)] for turn in turns]


def _two(points: list) -> list[list[float]]:
    """Two points. LabelMe also saves rectangles as four corners, of which the first and the third are opposite."""
    points = points[::2] if len(points) == 4 else points
    numbers = [number for point in points if isinstance(point, list) for number in point]
    if len(points) != 2 or len(numbers) != 4 or not all(
            type(number) in (int, float) and abs(number) < 1e15 for number in numbers):
        raise ValueError(f"its points are {shown(points)}; a rectangle, a circle and a mask have two.")
    return points


def _pasted(points: list, picture: Any, masks: TrackedMasks) -> Mask | None:
    """A mask that LabelMe stored as a picture of its box, of which the points are the first and the last pixel."""
    (left, top), _ = _two(points)
    if not isinstance(picture, str):
        raise ValueError(f"its mask is {shown(picture)}; it must be a PNG in base64.")
    try:
        inside = decode_png(base64.b64decode(picture, validate=True))
    except (binascii.Error, BadInput) as error:
        raise ValueError(f"its mask is no PNG in base64 ({error}).") from None
    row = round(top)
    column = round(left)
    height, width = inside.shape[:2]
    if inside.ndim != 2 or row < 0 or column < 0 or row + height > masks.height or column + width > masks.width:
        raise ValueError(f"its mask of {width}x{height} pixels at {column}, {row} does not lie inside the frame.")
    whole = np.zeros((masks.height, masks.width), np.uint8, order="F")
    whole[row:row + height, column:column + width] = inside > 0
    packed = coco.encode(whole)
    return packed if coco.area(packed) else None
