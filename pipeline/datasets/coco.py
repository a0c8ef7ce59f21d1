"""COCO panoptic and COCO instances: every image is a video of one frame, so everything downstream reads them alike.

<root>/train2017/*.jpg with annotations/panoptic_train2017.json and panoptic_train2017/*.png, or with
annotations/instances_train2017.json; `val` likewise. Crowd segments keep their flag and become void in training.
Source: cocodataset.org, "Data format". Own data in these layouts read the same way, with their own categories.
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
    """What both have in common: images and classes. A split without annotations (test) gives videos without segments.

    The classes are COCO's where the json names none but COCO's, else those of the json in the order of their ids.
    Raises `FileNotFoundError` when root, images or json are not there.
    """

    name: ClassVar[str]
    kind: ClassVar[str]     # first word of the json's name

    def __init__(self, root: str, *, split: str = "train") -> None:
        self.root = root_folder(root, name=self.name)
        self.split = split
        jsons = [self.root / "annotations" / f"{kind}_{split}2017.json" for kind in (self.kind, "image_info")]
        self.annotations = first_existing(jsons, what=f"json of the split {split!r}")
        self.images = first_existing([self.root / f"{split}2017"], what="folder of images")
        self.classes = self._class_table()

    def __reduce__(self):
        return partial(type(self), **self._options()), (str(self.root),)

    def _options(self) -> dict[str, str]:
        return {"split": self.split}

    def video_ids(self) -> list[str]:
        """All images of the split, by file name without suffix, sorted."""
        return sorted(self._entries)

    def read(self, video_id: str) -> VideoRecord:
        """Describe one image. Raises `BadInput` for an unknown image, missing files, and what is wrong with its
        annotation: ids that are missing, below 1 or used twice, unknown categories, masks of another size.
        """
        if video_id not in self._entries:
            raise BadInput("not-in-json", f"the json of split {self.split!r} has no such image.", video=video_id,
                           file=self.annotations, cure="Take a name that video_ids() lists.")
        entry = self._entries[video_id]
        try:
            image = self.images / entry["file_name"]
            size = (entry["height"], entry["width"])
            labels, segments = self._labels(video_id, entry["id"], size)
        except (KeyError, TypeError) as error:
            raise self._bad("bad-json", f"an entry of this image lacks or mistypes {error}.", video_id) from None
        if not image.is_file():
            raise BadInput("missing-image", "the json lists this image, but the file does not exist.", video=video_id,
                           file=image, cure="Copy the missing files.")
        frame = FrameRecord(name=video_id, image=image, **labels)
        return VideoRecord(video_id=video_id, height=size[0], width=size[1], frames=(frame,), segments=segments)

    @abstractmethod
    def _labels(self, video_id: str, image: int, size: tuple[int, int]) -> tuple[dict[str, Any], tuple[Segment, ...]]:
        """Fields of the frame record, and the segments."""

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
            raise self._bad("bad-json", f"a category lacks or mistypes {error}.") from None

    @cached_property
    def _entries(self) -> dict[str, dict]:
        """File name without suffix -> entry of the image."""
        try:
            images = load_json(self.annotations)["images"]
            entries = {_stem(entry): entry for entry in images}
            numbers = {entry["id"] for entry in images}
        except (KeyError, TypeError) as error:
            raise self._bad("bad-json", f"an entry lacks or mistypes {error}.") from None
        if not len(entries) == len(numbers) == len(images):
            raise self._bad("duplicate-id", f"{len(images)} images share {len(numbers)} ids and {len(entries)} names; "
                            f"each needs its own.")
        return entries

    @cached_property
    def _annotated(self) -> dict[int, list[dict]] | None:
        """Image id -> its annotations; None where the json has none at all."""
        annotations = load_json(self.annotations).get("annotations")
        if annotations is None:
            return None
        grouped = defaultdict(list)
        try:
            for annotation in annotations:
                grouped[annotation["image_id"]].append(annotation)
            orphans = grouped.keys() - {entry["id"] for entry in self._entries.values()}
        except (KeyError, TypeError) as error:
            raise self._bad("bad-json", f"an annotation lacks or mistypes {error}.") from None
        if orphans:
            raise self._bad("orphan-annotation", f"annotations name the image ids {sorted(orphans)[:5]}, which the "
                            f"json does not list.")
        return dict(grouped)

    def _bad(self, reason: str, what: str, video_id: str | None = None) -> BadInput:
        return BadInput(reason, what, video=video_id, file=self.annotations, cure=COPY_AGAIN)


class CocoPanoptic(_Coco):
    """Panoptic segmentation: 133 classes, one RGB-coded id map per image."""

    name = "coco_panoptic"
    kind = "panoptic"

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """H W int32: segment id of every pixel, 0 void. Raises `BadInput` for a missing, corrupt or odd-sized map.

        That map and annotation agree is checked where shards are written.
        """
        label = read_label(frame.label, video=video.video_id, indexed=False, size=(video.height, video.width))
        if label.ndim != 3:
            raise BadInput("corrupt-label", "the label has 1 channel, which is not the RGB coding.",
                           video=video.video_id, file=frame.label, cure="Copy or convert this label again.")
        return ids_from_rgb(label)

    def _labels(self, video_id: str, image: int, size: tuple[int, int]) -> tuple[dict[str, Any], tuple[Segment, ...]]:
        if self._annotated is None:
            return {}, ()
        found = self._annotated.get(image, [])
        if len(found) != 1:
            raise self._bad("not-in-json" if not found else "duplicate-id",
                            f"the json has {len(found)} annotations for this image; each image needs one.", video_id)
        label = self.root / f"panoptic_{self.split}2017" / found[0]["file_name"]
        if not label.is_file():
            raise BadInput("missing-label", "the json lists this label, but the file does not exist.", video=video_id,
                           file=label, cure="Unpack the panoptic PNGs of this split again.")
        segments = listed_segments({video_id: found[0]["segments_info"]}, self.classes,
                                   refuse=lambda reason, what: self._bad(reason, what, video_id))
        return {"label": label, "segment_ids": tuple(segment.id for segment in segments)}, segments


class CocoInstance(_Coco):
    """Instance segmentation: 80 classes of things; masks are polygons, those of crowds run lengths, and may overlap.

    An object too small or too thin to cover the centre of a pixel is left out.
    classes: name of a video data set of `coco_as_videos`, whose classes the objects get. Those that have no counterpart
    are left out, and so are images that show no other.
    """

    name = "coco_instance"
    kind = "instances"

    def __init__(self, root: str, *, split: str = "train", classes: str = "") -> None:
        super().__init__(root, split=split)
        self.classes_of = classes
        self.categories = self.classes
        self.counterparts = {id: id for id in self.categories.index_of}
        if classes:
            if self.categories != TABLES[self.name]:
                raise ValueError(f"{self.annotations} has categories of its own, which have no counterparts in "
                                 f"{classes}; leave dataset.classes out")
            self.counterparts = COUNTERPARTS[classes]
            self.classes = VIDEO_TABLES[classes]

    def _options(self) -> dict[str, str]:
        return super()._options() | {"classes": self.classes_of}

    def video_ids(self) -> list[str]:
        """All images of the split, by file name without suffix, sorted; with `classes` those that show any of them."""
        if not self.classes_of or self._annotated is None:
            return super().video_ids()
        return sorted(name for name, entry in self._entries.items() if any(
            annotation.get("category_id") in self.counterparts for annotation in self._annotated.get(entry["id"], [])))

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """Not for this data set: instances may overlap, so no map can hold them. Read `FrameRecord.masks`."""
        raise TypeError(f"{self.name} has masks that overlap and no id maps; read FrameRecord.masks")

    def _labels(self, video_id: str, image: int, size: tuple[int, int]) -> tuple[dict[str, Any], tuple[Segment, ...]]:
        if self._annotated is None:
            return {}, ()
        found = self._annotated.get(image, [])
        listed = listed_segments({video_id: found}, self.categories,
                                 refuse=lambda reason, what: self._bad(reason, what, video_id))
        masks = {annotation["id"]: self._mask(annotation, size, video_id) for annotation in found}
        segments = tuple(segment for segment in map(self._counterpart, listed)
                         if segment is not None and masks[segment.id] is not None)
        shown = {segment.id: masks[segment.id] for segment in segments}
        return {"segment_ids": tuple(shown), "masks": shown}, segments

    def _counterpart(self, segment: Segment) -> Segment | None:
        """The segment in the class it is to have, None where there is none."""
        counterpart = self.counterparts.get(self.categories.classes[segment.class_index].dataset_id)
        return None if counterpart is None else replace(segment, class_index=self.classes.index_of[counterpart])

    def _mask(self, annotation: dict, size: tuple[int, int], video_id: str) -> dict | None:
        try:
            return packed_mask(annotation["segmentation"], height=size[0], width=size[1])
        except ValueError as error:
            raise self._bad("size-differs", f"annotation {annotation['id']}: {error}", video_id) from None


def _stem(entry: dict) -> str:
    return PurePosixPath(entry["file_name"]).stem
