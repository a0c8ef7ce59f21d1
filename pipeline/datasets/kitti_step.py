"""KITTI-STEP, and any panoptic video data set in its layout: PNG frames, and RGB maps of class and instance.

images/<split>/<sequence>/<frame>.png and panoptic_maps/<split>/<sequence>/<frame>.png. In a map, red is the class
(255: void) and 256 green + blue is the instance; pixels of a thing class without an instance are crowd. Source: STEP
(Weber et al., NeurIPS Datasets 2021), README of its annotations.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from model.labels import ClassInfo, ClassTable
from pipeline.datasets.folders import class_table, first_existing, root_folder
from pipeline.datasets.id_maps import ids_in, read_label
from pipeline.datasets.video_files import VideoFiles
from pipeline.errors import BadInput
from pipeline.file_names import composed, is_companion
from pipeline.records import FrameRecord, Segment, VideoRecord

CATEGORIES = "categories.json"
VOID_CLASS = 255
INSTANCES = 1 << 16

_NAMES = ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
          "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
_COLORS = ((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153),
           (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0),
           (0, 0, 142), (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32))
TABLE = ClassTable("kitti_step", tuple(     # the 19 classes and colours of Cityscapes; only person and car have tracks
    ClassInfo(id, name, name in ("person", "car"), color)
    for id, (name, color) in enumerate(zip(_NAMES, _COLORS, strict=True))))


class KittiStep:
    """One split. The id of a segment is (class + 1) * 65536 + instance; stuff has the instance 0.

    The classes are KITTI-STEP's unless the folder has a categories.json. The split "test" may lack maps.
    A frame need not have a map. Raises `FileNotFoundError` when the root, the frames or the maps do not exist, and
    `BadInput` for categories that cannot be read or stored in a map.
    """

    def __init__(self, root: str, *, split: str = "train") -> None:
        self.root = root_folder(root, name="kitti_step")
        self.split = split
        self.images = first_existing([self.root / "images" / split], description=f"frames of the split {split!r}")
        labels = self.root / "panoptic_maps" / split
        unlabelled = split == "test" and not labels.exists()
        self.labels = None if unlabelled else first_existing([labels], description=f"maps of the split {split!r}")
        categories = self.root / CATEGORIES
        self.classes = class_table("kitti_step", categories, highest=VOID_CLASS - 1) if categories.is_file() else TABLE

    def __reduce__(self):
        return _reopen, (str(self.root), self.split)

    def video_ids(self) -> list[str]:
        """The names of all sequences of the split, sorted; links to nowhere too, which `read` names."""
        return sorted(composed(path.name) for path in self._listed() if path.is_dir() or path.is_symlink())

    @property
    def remarks(self) -> Mapping[str, int]:
        """Files beside the folders of frames, which are left out."""
        files = sum(path.is_file() for path in self._listed())
        return {"files beside the folders of frames": files} if files else {}

    def read(self, video_id: str) -> VideoRecord:
        """Describe one sequence. All its maps are decoded, since only they list the segments of a frame.

        A frame whose map cannot be read, is of another size or holds a class outside the table has no label, and is
        named among the faults. Raises `BadInput` where all labelled frames are so, and for missing or unreadable
        pictures and frames that have only a map.
        """
        files = VideoFiles.find(video_id, images=self.images / video_id,
                                labels=None if self.labels is None else self.labels / video_id,
                                roots=(self.root, self.images, *([self.labels] if self.labels else [])))
        return files.record(read_ids=lambda file: self._ids(file, video_id), make_segment=self._segment)

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """H W int32: segment id of every pixel, 0 void. Raises `BadInput` for a map that is missing or faulty."""
        return self._ids(frame.label, video.video_id, size=(video.height, video.width))

    def _listed(self) -> list[Path]:
        return [path for path in self.images.iterdir() if not is_companion(path.name)]

    @cached_property
    def _first_ids(self) -> np.ndarray:
        """Class -> segment id of its instance 0; 256 int32, 0 void, -1 not a class."""
        first = np.full(256, -1, dtype=np.int32)
        for info in self.classes.classes:
            first[info.dataset_id] = (info.dataset_id + 1) * INSTANCES
        first[VOID_CLASS] = 0
        return first

    @cached_property
    def _has_instances(self) -> np.ndarray:
        """Class -> whether it is a thing class; 256 bool."""
        things = np.zeros(256, dtype=bool)
        things[[info.dataset_id for info in self.classes.classes if info.is_thing]] = True
        return things

    def _segment(self, id: int) -> Segment:
        dataset_class = id // INSTANCES - 1
        instance = id % INSTANCES
        return Segment(id=id, class_index=self.classes.index_of[dataset_class],
                       is_crowd=bool(self._has_instances[dataset_class]) and instance == 0)

    def _ids(self, file: Path, video_id: str, *, size: tuple[int, int] | None = None) -> np.ndarray:
        label = read_label(file, video=video_id, indexed=False, size=size)
        if label.ndim != 3:
            raise BadInput("corrupt-label", "the map has 1 channel; class and instance need 3.", video=video_id,
                           file=file, cure="Copy it again.")
        dataset_class = label[..., 0]
        ids = self._first_ids[dataset_class]
        if ids.min() < 0:
            raise BadInput("unknown-category", f"the map holds the classes {ids_in(dataset_class[ids < 0])[:5]}, "
                           f"which are not in the class table.", video=video_id, file=file,
                           cure=f"Copy it again, or list the classes of your own data in {CATEGORIES}.")
        instance = label[..., 1].astype(np.int32) << 8 | label[..., 2]
        return ids + instance * self._has_instances[dataset_class]


def _reopen(root: str, split: str) -> KittiStep:
    return KittiStep(root, split=split)
