"""COCO panoptic and COCO instances. Every image is read as a video of one frame, so later stages need no other case.

<root>/train2017/*.jpg with annotations/panoptic_train2017.json and panoptic_train2017/*.png, or with
annotations/instances_train2017.json; `val` likewise. Crowd segments keep their flag and become void in training.
Source: cocodataset.org, "Data format". Your own data in these layouts are read the same way, with their own categories.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import replace
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Any, ClassVar

import numpy as np

from model.labels import ClassInfo, ClassTable
from pipeline.datasets.classes_coco import TABLES
from pipeline.datasets.classes_youtube_vis import TABLES as VIDEO_TABLES
from pipeline.datasets.classes_youtube_vis import distinct_color
from pipeline.datasets.coco_as_videos import COUNTERPARTS
from pipeline.datasets.folders import first_existing, load_json, root_folder
from pipeline.datasets.id_maps import listed_segments, read_label
from pipeline.datasets.run_lengths import packed_mask
from pipeline.errors import BadInput
from pipeline.images import ids_from_rgb
from pipeline.records import FrameRecord, Segment, VideoRecord

COPY_AGAIN = "Copy the json of this split again, or correct this entry."


class _Coco(ABC):
    """Images and classes, which both data sets read alike. A split without annotations (test) has no segments.

    The classes are COCO's if all categories of the json are COCO's, else those of the json in the order of their ids.
    Raises `FileNotFoundError` when the root, the images or the json do not exist.
    """

    name: ClassVar[str]
    kind: ClassVar[str]     # first word of the json's name

    def __init__(self, root: str, *, split: str = "train") -> None:
        self.root = root_folder(root, name=self.name)
        self.split = split
        jsons = [self.root / "annotations" / f"{kind}_{split}2017.json" for kind in (self.kind, "image_info")]
        self.annotations = first_existing(jsons, description=f"json of the split {split!r}")
        self.images = first_existing([self.root / f"{split}2017"], description="folder of images")
        self.classes = self._class_table()

    def __reduce__(self):
        return partial(type(self), **self._options()), (str(self.root),)

    def _options(self) -> dict[str, str]:
        return {"split": self.split}

    def video_ids(self) -> list[str]:
        """All images of the split, by file name without suffix, sorted."""
        return sorted(self._entries)

    def read(self, video_id: str) -> VideoRecord:
        """Describe one image.

        Raises `BadInput` for an unknown image, for missing files, and for a faulty annotation: ids that are missing,
        below 1 or used twice, unknown categories, masks of another size.
        """
        if video_id not in self._entries:
            raise BadInput("not-in-json", f"the json of split {self.split!r} has no such image.", video=video_id,
                           file=self.annotations, cure="Use a name that video_ids() lists.")
        entry = self._entries[video_id]
        try:
            image = self.images / entry["file_name"]
            size = (entry["height"], entry["width"])
            labels, segments = self._labels(video_id, entry["id"], size)
        except (KeyError, TypeError) as error:
            raise self._bad("bad-json", f"a field of this image is missing or has the wrong type: {error}.",
                            video_id) from None
        if not image.is_file():
            raise BadInput("missing-image", "the json lists this image, but the file does not exist.", video=video_id,
                           file=image, cure="Copy the missing files.")
        frame = FrameRecord(name=video_id, image=image, **labels)
        return VideoRecord(video_id=video_id, height=size[0], width=size[1], frames=(frame,), segments=segments)

    @abstractmethod
    def _labels(self, video_id: str, image: int, size: tuple[int, int]) -> tuple[dict[str, Any], tuple[Segment, ...]]:
        """The label fields of the frame record, and the segments."""

    def _class_table(self) -> ClassTable:
        names = {info.dataset_id: info.name for info in TABLES[self.name].classes}
        try:
            rows = {row["id"]: row for row in load_json(self.annotations).get("categories", [])}
            if all(names.get(id) == row["name"] for id, row in rows.items()):
                return TABLES[self.name]
            return ClassTable(self.name, tuple(
                ClassInfo(id, row["name"], bool(row.get("isthing", 1)), tuple(row.get("color", distinct_color(id))))
                for id, row in sorted(rows.items())))
        except (KeyError, TypeError) as error:
            raise self._bad("bad-json", f"a field of a category is missing or has the wrong type: {error}.") from None

    @cached_property
    def _entries(self) -> dict[str, dict]:
        """File name without suffix -> the image's entry in the json."""
        try:
            images = load_json(self.annotations)["images"]
            entries = {_stem(entry): entry for entry in images}
            ids = {entry["id"] for entry in images}
        except (KeyError, TypeError) as error:
            raise self._bad("bad-json", f"a field of an image is missing or has the wrong type: {error}.") from None
        if not len(entries) == len(ids) == len(images):
            raise self._bad("duplicate-id", f"{len(images)} images have only {len(ids)} different ids and "
                            f"{len(entries)} different names; each image needs its own.")
        return entries

    @cached_property
    def _annotated(self) -> dict[int, list[dict]] | None:
        """Image id -> its annotations; None if the json has no list of annotations."""
        annotations = load_json(self.annotations).get("annotations")
        if annotations is None:
            return None
        grouped = defaultdict(list)
        try:
            for annotation in annotations:
                grouped[annotation["image_id"]].append(annotation)
            orphans = grouped.keys() - {entry["id"] for entry in self._entries.values()}
        except (KeyError, TypeError) as error:
            raise self._bad("bad-json",
                            f"a field of an annotation is missing or has the wrong type: {error}.") from None
        if orphans:
            raise self._bad("orphan-annotation", f"annotations belong to the image ids {sorted(orphans)[:5]}, which "
                            f"the json does not list.")
        return dict(grouped)

    def _bad(self, reason: str, problem: str, video_id: str | None = None) -> BadInput:
        return BadInput(reason, problem, video=video_id, file=self.annotations, cure=COPY_AGAIN)


class CocoPanoptic(_Coco):
    """Panoptic segmentation: 133 classes, one RGB-coded id map per image."""

    name = "coco_panoptic"
    kind = "panoptic"

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """H W int32: segment id of every pixel, 0 void.

        Raises `BadInput` for a map that is missing, corrupt or of another size. Writing shards
        checks that the map and the annotation agree.
        """
        label = read_label(frame.label, video=video.video_id, indexed=False, size=(video.height, video.width))
        if label.ndim != 3:
            raise BadInput("corrupt-label", "the label has 1 channel; the RGB coding needs 3.",
                           video=video.video_id, file=frame.label, cure="Copy or convert this label again.")
        return ids_from_rgb(label)

    def _labels(self, video_id: str, image: int, size: tuple[int, int]) -> tuple[dict[str, Any], tuple[Segment, ...]]:
        if self._annotated is None:
            return {}, ()
        annotations = self._annotated.get(image, [])
        if len(annotations) != 1:
            raise self._bad("duplicate-id" if annotations else "not-in-json",
                            f"the json has {len(annotations)} annotations for this image; each image needs one.",
                            video_id)
        label = self.root / f"panoptic_{self.split}2017" / annotations[0]["file_name"]
        if not label.is_file():
            raise BadInput("missing-label", "the json lists this label, but the file does not exist.", video=video_id,
                           file=label, cure="Unpack the panoptic PNGs of this split again.")
        segments = listed_segments({video_id: annotations[0]["segments_info"]}, self.classes,
                                   refuse=lambda reason, problem: self._bad(reason, problem, video_id))
        return {"label": label, "segment_ids": tuple(segment.id for segment in segments)}, segments


class CocoInstance(_Coco):
    """Instance segmentation: 80 classes of things. Masks are polygons (run lengths for crowds), and they may overlap.

    An object that is too small or too thin to cover the centre of a pixel is left out.
    classes: name of a video data set in `coco_as_videos`; objects get the classes of that data set. Objects without a
    counterpart are left out, and so are images that show only such objects.
    """

    name = "coco_instance"
    kind = "instances"

    def __init__(self, root: str, *, split: str = "train", classes: str = "") -> None:
        super().__init__(root, split=split)
        self.mapped_to = classes
        self.categories = self.classes
        self.counterparts = {id: id for id in self.categories.index_of}
        if classes:
            if self.categories != TABLES[self.name]:
                raise ValueError(f"{self.annotations} has categories of its own, which cannot be mapped to those of "
                                 f"{classes}; leave dataset.classes out")
            self.counterparts = COUNTERPARTS[classes]
            self.classes = VIDEO_TABLES[classes]

    def _options(self) -> dict[str, str]:
        return super()._options() | {"classes": self.mapped_to}

    def video_ids(self) -> list[str]:
        """File names of all images without suffix, sorted; with `classes`, only images that show one of them."""
        if not self.mapped_to or self._annotated is None:
            return super().video_ids()
        return sorted(name for name, entry in self._entries.items() if any(
            annotation.get("category_id") in self.counterparts for annotation in self._annotated.get(entry["id"], [])))

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """Raises `TypeError`: instances may overlap, so no id map can hold them. Read `FrameRecord.masks` instead."""
        raise TypeError(f"{self.name} has masks that may overlap and therefore no id maps; read FrameRecord.masks")

    def _labels(self, video_id: str, image: int, size: tuple[int, int]) -> tuple[dict[str, Any], tuple[Segment, ...]]:
        if self._annotated is None:
            return {}, ()
        annotations = self._annotated.get(image, [])
        listed = listed_segments({video_id: annotations}, self.categories,
                                 refuse=lambda reason, problem: self._bad(reason, problem, video_id))
        masks = {annotation["id"]: self._mask(annotation, size, video_id) for annotation in annotations}
        segments = tuple(segment for segment in map(self._counterpart, listed)
                         if segment is not None and masks[segment.id] is not None)
        shown = {segment.id: masks[segment.id] for segment in segments}
        return {"segment_ids": tuple(shown), "masks": shown}, segments

    def _counterpart(self, segment: Segment) -> Segment | None:
        """The segment with the class of the video data set; None if that data set has no such class."""
        counterpart = self.counterparts.get(self.categories.classes[segment.class_index].dataset_id)
        return None if counterpart is None else replace(segment, class_index=self.classes.index_of[counterpart])

    def _mask(self, annotation: dict, size: tuple[int, int], video_id: str) -> dict | None:
        try:
            return packed_mask(annotation["segmentation"], height=size[0], width=size[1])
        except ValueError as error:
            raise self._bad("size-differs", f"annotation {annotation['id']}: {error}", video_id) from None


def _stem(entry: dict) -> str:
    return PurePosixPath(entry["file_name"]).stem
