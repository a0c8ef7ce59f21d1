"""KITTI-STEP, and any panoptic video data set in its layout: PNG frames, class and instance in one RGB map.

images/<split>/<sequence>/<frame>.png and panoptic_maps/<split>/<sequence>/<frame>.png. In a map red is the class, 255
void, and 256 green + blue the instance; pixels of a thing without instance are crowd. Source: STEP (Weber et al.,
NeurIPS Datasets 2021), README of its annotations.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from model.labels import ClassInfo, ClassTable
from pipeline.datasets.folders import class_table, first_existing, root_folder
from pipeline.datasets.id_maps import ids_in, read_label
from pipeline.datasets.video_files import VideoFiles
from pipeline.errors import BadInput
from pipeline.records import FrameRecord, Segment, VideoRecord

CATEGORIES = "categories.json"
VOID_CLASS = 255
INSTANCES = 1 << 16

_NAMES = ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
          "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
_COLORS = ((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
           (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
           (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32))
TABLE = ClassTable("kitti_step", tuple(     # the 19 classes and colours of Cityscapes, of which two have tracks
    ClassInfo(number, name, name in ("person", "car"), color)
    for number, (name, color) in enumerate(zip(_NAMES, _COLORS, strict=True))))


class KittiStep:
    """One split. A segment's id is (class + 1) * 65536 + instance; stuff has no instance.

    The classes are KITTI-STEP's unless the folder has a categories.json. The split "test" may come without maps.
    Raises `FileNotFoundError` when root, frames or maps are not there.
    """

    def __init__(self, root: str, *, split: str = "train") -> None:
        self.root = root_folder(root, name="kitti_step")
        self.split = split
        self.images = first_existing([self.root / "images" / split], what=f"frames of the split {split!r}")
        labels = self.root / "panoptic_maps" / split
        unlabelled = split == "test" and not labels.exists()
        self.labels = None if unlabelled else first_existing([labels], what=f"maps of the split {split!r}")
        own = self.root / CATEGORIES
        self.classes = class_table("kitti_step", own) if own.is_file() else TABLE

    def __reduce__(self):
        return _reopen, (str(self.root), self.split)

    def video_ids(self) -> list[str]:
        """The names of all sequences of the split, sorted."""
        return sorted(path.name for path in self.images.iterdir() if path.is_dir())

    def read(self, video_id: str) -> VideoRecord:
        """Describe one sequence; its maps are decoded, since only they say what is in a frame.

        Raises `BadInput` for missing or unreadable files, frames that images and maps do not share, classes outside
        the table, sizes that differ.
        """
        files = VideoFiles.find(video_id, images=self.images / video_id,
                                labels=None if self.labels is None else self.labels / video_id)
        return files.record(ids_of=lambda file: self._ids(file, video_id), segment_of=self._segment)

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """H W int32: segment id of every pixel, 0 void. Raises `BadInput` for a map that cannot be."""
        return self._ids(frame.label, video.video_id, size=(video.height, video.width))

    @cached_property
    def _first_ids(self) -> np.ndarray:
        """Class -> its segment id without instance; 256 int32, 0 void, -1 not a class."""
        first = np.full(256, -1, dtype=np.int32)
        for info in self.classes.classes:
            first[info.dataset_id] = (info.dataset_id + 1) * INSTANCES
        first[VOID_CLASS] = 0
        return first

    @cached_property
    def _has_instances(self) -> np.ndarray:
        """Class -> whether it is a thing; 256 bool."""
        things = np.zeros(256, dtype=bool)
        things[[info.dataset_id for info in self.classes.classes if info.is_thing]] = True
        return things

    def _segment(self, id: int) -> Segment:
        number = id // INSTANCES - 1
        instance = id % INSTANCES
        return Segment(id=id, class_index=self.classes.index_of[number],
                       is_crowd=bool(self._has_instances[number]) and instance == 0)

    def _ids(self, file: Path, video_id: str, *, size: tuple[int, int] | None = None) -> np.ndarray:
        label = read_label(file, video=video_id, indexed=False, size=size)
        if label.ndim != 3:
            raise BadInput("corrupt-label", "the map has 1 channel, not class and instance in three.", video=video_id,
                           file=file, cure="Copy it again.")
        number = label[..., 0]
        ids = self._first_ids[number]
        if ids.min() < 0:
            raise BadInput("unknown-category", f"the map holds the classes {ids_in(number[ids < 0])[:5]}, which the "
                           f"table does not have.", video=video_id, file=file,
                           cure=f"Copy it again, or list the classes of own data in {CATEGORIES}.")
        instance = label[..., 1].astype(np.int32) << 8 | label[..., 2]
        return ids + instance * self._has_instances[number]


def _reopen(root: str, split: str) -> KittiStep:
    return KittiStep(root, split=split)
