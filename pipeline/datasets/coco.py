"""COCO panoptic and COCO instances. Every image is read as a video of one frame, so later stages need no other case.

<root>/train2017/*.jpg with annotations/panoptic_train2017.json and panoptic_train2017/*.png, or with
annotations/instances_train2017.json; `val` likewise. Crowd segments keep their flag and become void in training.
Source: cocodataset.org, "Data format". Your own data in these layouts are read the same way, with their own categories.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import Any, ClassVar

import numpy as np

from model.labels import ClassTable
from pipeline.datasets.class_rows import table_of_rows
from pipeline.datasets.classes_coco import TABLES
from pipeline.datasets.classes_youtube_vis import TABLES as VIDEO_TABLES
from pipeline.datasets.coco_as_videos import COUNTERPARTS
from pipeline.datasets.folders import first_existing, load_entry, root_folder
from pipeline.datasets.id_maps import listed_segments, read_label
from pipeline.datasets.json_entries import Entry, shown, whole_number, whole_or_text
from pipeline.datasets.run_lengths import packed_mask
from pipeline.errors import BadInput
from pipeline.file_names import frame_name, on_disk, video_name
from pipeline.foreign_files import inside
from pipeline.images import ids_from_rgb
from pipeline.records import FrameRecord, Mask, Segment, VideoRecord

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
        """All images of the split, by file name without suffix, sorted.

        Where two images have the same, their folder is part of it, joined by "+".
        """
        return sorted(self._entries)

    @property
    def remarks(self) -> Mapping[str, int]:
        """Annotations of no image, which are left out."""
        return {"annotations of no listed image": self._orphans} if self._orphans else {}

    def read(self, video_id: str) -> VideoRecord:
        """Describe one image.

        Raises `BadInput` for an unknown image, for missing files, and for a faulty annotation: ids that are missing,
        below 1 or used twice, unknown categories, masks of another size, fields of the wrong type.
        """
        entry = self._entries.get(video_id)
        if entry is None:
            raise BadInput("not-in-json", f"the json of split {self.split!r} has no such image.", video=video_id,
                           file=self.annotations, cure="Use a name that video_ids() lists.")
        if isinstance(entry, BadInput):
            raise BadInput(entry.reason, entry.what, video=video_id, file=self.annotations, cure=COPY_AGAIN)
        entry = entry.of_video(video_id)
        image = inside(on_disk(self.images / entry.path("file_name")), self.root, self.images)
        size = entry.size()
        remarks: Counter[str] = Counter()
        labels, segments = self._labels(entry, size, remarks)
        if not os.path.exists(image):
            raise BadInput("missing-image", "the json lists this image, but the file does not exist.", video=video_id,
                           file=image, cure="Copy the missing files.")
        frame = FrameRecord(name=frame_name(PurePosixPath(image).stem), image=image, **labels)
        return VideoRecord(video_id=video_id, height=size[0], width=size[1], frames=(frame,), segments=segments,
                           remarks=remarks)

    @abstractmethod
    def _labels(self, image: Entry, size: tuple[int, int],
                remarks: Counter[str]) -> tuple[dict[str, Any], tuple[Segment, ...]]:
        """The label fields of the frame record, and the segments; counts what is left out."""

    def _class_table(self) -> ClassTable:
        names = {info.dataset_id: info.name for info in TABLES[self.name].classes}
        rows = list(self._content.entries("categories", "category")) if self._content.values.get("categories") else []
        if all(names.get(row.whole("id")) == row.text("name") for row in rows):
            return TABLES[self.name]
        return table_of_rows(self.name, rows, things=True, sort=True)

    @cached_property
    def _content(self) -> Entry:
        return load_entry(self.annotations, cure=COPY_AGAIN)

    @cached_property
    def _entries(self) -> dict[str, Entry | BadInput]:
        """Name -> the image's entry in the json, or the reason why it cannot be read."""
        images = self._content.list("images")
        ids = Counter(whole_or_text(values.get("id")) for values in images if isinstance(values, dict))
        stems = Counter(_stem(values) for values in images)
        entries: dict[str, Entry | BadInput] = {}
        for index, values in enumerate(images):
            name = f"images[{index}]"
            try:
                entry = self._content.part(values, "image")
                path = entry.path("file_name")
                name = frame_name(PurePosixPath(path).stem)
                if stems[name] > 1:
                    name = video_name(str(PurePosixPath(path).with_suffix("")))
                entry.key("id")
                if ids[entry.key("id")] > 1 or name in entries:
                    entry = entry.bad(f"the id {shown(entry.value('id'))} or the name of this image is listed twice; "
                                      "each image needs its own.", "duplicate-id")
                entries[name] = entry
            except BadInput as error:
                entries[name] = error
        return entries

    @cached_property
    def _grouped(self) -> tuple[dict[int | str, list[Entry]] | None, int]:
        """Image id -> its annotations, None if the json has no list of them; and how many belong to no image."""
        if self._content.values.get("annotations") is None:
            return None, 0
        ids = {whole_or_text(values.get("id")) for values in self._content.list("images") if isinstance(values, dict)}
        grouped = defaultdict(list)
        orphans = 0
        for values in self._content.list("annotations"):
            image = whole_or_text(values.get("image_id")) if isinstance(values, dict) else None
            if image is None or image not in ids:
                orphans += 1
            else:
                grouped[image].append(self._content.part(values, "annotation"))
        if orphans and not grouped:
            raise self._content.bad(f"none of {orphans} annotations belongs to an image that the json lists; compare "
                                    "their image_id with the id of the images.", "orphan-annotation")
        return dict(grouped), orphans

    @property
    def _annotated(self) -> dict[int | str, list[Entry]] | None:
        return self._grouped[0]

    @property
    def _orphans(self) -> int:
        return self._grouped[1]

    def _annotations_of(self, image: Entry) -> list[Entry]:
        return [entry.of_video(image.video) for entry in self._annotated.get(image.key("id"), [])]


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

    def _labels(self, image: Entry, size: tuple[int, int],
                remarks: Counter[str]) -> tuple[dict[str, Any], tuple[Segment, ...]]:
        if self._annotated is None:
            return {}, ()
        annotations = self._annotations_of(image)
        if not annotations:
            return {}, ()
        if len(annotations) != 1:
            raise image.bad(f"the json has {len(annotations)} annotations for this image; each image has one.",
                            "duplicate-id")
        folder = self.root / f"panoptic_{self.split}2017"
        label = inside(on_disk(folder / annotations[0].path("file_name")), self.root, folder)
        if not os.path.exists(label):
            raise BadInput("missing-label", "the json lists this label, but the file does not exist.",
                           video=image.video, file=label, cure="Unpack the panoptic PNGs of this split again.")
        segments = listed_segments({image.video: list(annotations[0].entries("segments_info", "segment"))},
                                   self.classes)
        return {"label": label, "segment_ids": tuple(segment.id for segment in segments)}, segments


class CocoInstance(_Coco):
    """Instance segmentation: 80 classes of things. Masks are polygons (run lengths for crowds), and they may overlap.

    An object without a mask, or too small or too thin to cover the centre of a pixel, is left out and counted.
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
        return sorted(name for name, entry in self._entries.items() if isinstance(entry, BadInput) or any(
            whole_number(annotation.values.get("category_id")) in self.counterparts
            for annotation in self._annotated.get(entry.key("id"), [])))

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """Raises `TypeError`: instances may overlap, so no id map can hold them. Read `FrameRecord.masks` instead."""
        raise TypeError(f"{self.name} has masks that may overlap and therefore no id maps; read FrameRecord.masks")

    def _labels(self, image: Entry, size: tuple[int, int],
                remarks: Counter[str]) -> tuple[dict[str, Any], tuple[Segment, ...]]:
        if self._annotated is None:
            return {}, ()
        annotations = self._annotations_of(image)
        listed = listed_segments({image.video: annotations}, self.categories)
        masks = {entry.whole("id"): _mask(entry, size, remarks) for entry in annotations}
        segments = tuple(segment for segment in map(self._counterpart, listed)
                         if segment is not None and masks[segment.id] is not None)
        shown = {segment.id: masks[segment.id] for segment in segments}
        if other := sum(self._counterpart(segment) is None for segment in listed):
            remarks[f"objects without a class in {self.classes.name}"] += other
        return {"segment_ids": tuple(shown), "masks": shown}, segments

    def _counterpart(self, segment: Segment) -> Segment | None:
        """The segment with the class of the video data set; None if that data set has no such class."""
        counterpart = self.counterparts.get(self.categories.classes[segment.class_index].dataset_id)
        return None if counterpart is None else replace(segment, class_index=self.classes.index_of[counterpart])


def _mask(annotation: Entry, size: tuple[int, int], remarks: Counter[str]) -> Mask | None:
    """Raises BadInput, which names the annotation, for a mask that is none. One without a pixel is None and counted."""
    told = annotation.values.get("segmentation")
    box = annotation.values.get("bbox")
    if told is None and box is None:
        annotation.value("segmentation")
    try:
        mask = packed_mask(told, height=size[0], width=size[1])
    except ValueError as error:
        raise annotation.bad(f"{annotation.name}: {error}", "size-differs") from None
    if mask is None:
        remarks["objects without a pixel" if told or not box else "boxes without a mask"] += 1
    return mask


def _stem(image: Any) -> str:
    """The name of the frame of an image; "" where there is none."""
    name = image.get("file_name") if isinstance(image, dict) else None
    return frame_name(PurePosixPath(name.replace("\\", "/")).stem) if isinstance(name, str) else ""
