"""Videos in the layout of DAVIS and YouTube-VOS, which tools for mask propagation such as SAM 2 write too.

JPEGImages/<video>/<frame>.jpg and Annotations/<video>/<frame>.png, both perhaps with a folder 480p above the videos;
lists of the videos in ImageSets/2017/<split>.txt, ImageSets/<split>.txt or <split>.txt, or the two folders inside
<split>/. A value of a PNG with a palette is an object, which has the same value in all frames; 0 is background. 255 is
void beside other values, and the object where it is the only one. Without classes all objects are things of one class;
meta.json gives the class of every object as in YouTube-VOS. Source: davischallenge.org and youtube-vos.org.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.datasets.folders import first_existing, folder_of, load_entry, read_list, root_folder
from pipeline.datasets.id_maps import read_label
from pipeline.datasets.json_entries import Entry, whole_number
from pipeline.datasets.own_folders import own_classes, subfolders
from pipeline.datasets.video_files import VideoFiles
from pipeline.errors import BadInput
from pipeline.file_names import composed
from pipeline.records import FrameRecord, Segment, VideoRecord

META = "meta.json"
ONLY_CLASS = "object"
VOID = 255
CURE = "Correct this entry, or remove the file: all objects are then of one class."


class Davis:
    """One split. The segments of a video are the values of its label maps.

    Raises `FileNotFoundError` when the root, the frames or the split do not exist, and `BadInput` for lists and classes
    that cannot be read.
    """

    remarks: ClassVar[Mapping[str, int]] = {}

    def __init__(self, root: str, *, split: str = "train") -> None:
        self.root = root_folder(root, name="davis")
        self.split = split
        places = [self.root / split / "JPEGImages", self.root / "JPEGImages"]
        self.images = _resolution(first_existing(places, description="folder of frames"))
        self.labels = _resolution(first_existing([path.with_name("Annotations") for path in places],
                                                 description="folder of label maps"))
        self.meta = places[0].parent / META if (places[0].parent / META).is_file() else self.root / META
        self.classes = own_classes("davis", self.root, self._names)
        self._class_of = {info.name: index for index, info in enumerate(self.classes.classes)}
        self._folders = self._listed()

    def video_ids(self) -> list[str]:
        """All videos on the list of the split, or in its folder, sorted; nested folders are joined by "+"."""
        return sorted(self._folders)

    def read(self, video_id: str) -> VideoRecord:
        """Describe one video. All its maps are decoded, since only they list the objects of a frame.

        A frame whose map cannot be read, is of another size or shows an object without a class has no label, and is
        named among the faults. Raises `BadInput` where all labelled frames are so, and for missing or unreadable
        pictures and frames that have only a map.
        """
        folder = folder_of(self._folders, video_id)
        files = VideoFiles.find(video_id, images=self.images / folder, labels=self.labels / folder,
                                roots=(self.root, self.images, self.labels))
        values = set()
        for file in (file for name, file in files.labels.items() if name not in files.faults):
            with suppress(BadInput):        # the record names it
                values.update(np.unique(_map(file, video_id)).tolist())
        keeps_255 = values <= {0, VOID}
        return files.record(read_ids=lambda file: _ids(file, video_id, keeps_255=keeps_255),
                            make_segment=lambda id: Segment(id=id, class_index=self._class(video_id, folder, id)))

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """H W int32: the object of every pixel, 0 background. Raises `BadInput` for a missing or faulty map."""
        keeps_255 = any(segment.id == VOID for segment in video.segments)
        return _ids(frame.label, video.video_id, keeps_255=keeps_255, size=(video.height, video.width))

    def _listed(self) -> dict[str, str | BadInput]:
        """Name of each video -> its folder inside that of all frames, or why it cannot be read."""
        if self.images.is_relative_to(self.root / self.split):
            return {composed(name): name for name in subfolders(self.images)}
        lists = [self.root / "ImageSets" / "2017" / f"{self.split}.txt", self.root / "ImageSets" / f"{self.split}.txt",
                 self.root / f"{self.split}.txt"]
        return read_list(first_existing(lists, description=f"list of the split {self.split!r}"))

    @cached_property
    def _objects(self) -> dict[str, Entry | BadInput]:
        """Folder of a video -> its objects in meta.json, or why they cannot be read."""
        return _objects_in(self.meta)

    def _names(self) -> list[str]:
        """The classes that the meta.json of any split gives, or the only one: all splits have the same classes."""
        files = [self.root / META, *(self.root / name / META for name in subfolders(self.root))]
        names = []
        for objects in (objects for file in files for objects in _objects_in(file).values()):
            for id in objects.values if isinstance(objects, Entry) else ():
                with suppress(BadInput):        # its video names it
                    names.append(_category(objects, id))
        return names or [ONLY_CLASS]

    def _class(self, video_id: str, folder: str, id: int) -> int:
        if not self._objects:
            return 0
        objects = self._objects.get(composed(folder))
        if isinstance(objects, BadInput):
            raise objects
        keys = {whole_number(key): key for key in objects.values} if objects is not None else {}
        name = _category(objects, keys[id]) if id in keys else None
        if name not in self._class_of:
            raise BadInput("unknown-category", f"object {id} has no class there."
                           if name is None else f"object {id} has the class {name!r}, which is not listed.",
                           video=video_id, file=self.meta, cure=CURE)
        return self._class_of[name]


def _objects_in(meta: Path) -> dict[str, Entry | BadInput]:
    """Folder of a video -> its objects, or why they cannot be read; nothing without the file."""
    if not meta.is_file():
        return {}
    file = load_entry(meta, cure=CURE)
    videos = file.part(file.value("videos"), "videos")
    return {composed(name): _objects_of(name, values, file) for name, values in videos.values.items()}


def _objects_of(name: str, values: Any, file: Entry) -> Entry | BadInput:
    try:
        return file.part(file.part(values, f"video {name!r}").value("objects"), f"objects of {name!r}").of_video(name)
    except BadInput as error:
        return error


def _resolution(folder: Path) -> Path:
    """The folder of the videos, which is one deeper in DAVIS."""
    return folder / "480p" if (folder / "480p").is_dir() else folder


def _category(objects: Entry, id: str) -> str:
    return objects.part(objects.value(id), f"object {id}").text("category")


def _map(file: Path, video_id: str, *, size: tuple[int, int] | None = None) -> np.ndarray:
    label = read_label(file, video=video_id, indexed=True, size=size)
    if label.ndim != 2:
        raise BadInput("corrupt-label", "the map has 3 channels instead of 1, so it has colours and no objects.",
                       video=video_id, file=file, cure="Save it as a PNG with a palette, or with one gray channel.")
    return label


def _ids(file: Path, video_id: str, *, keeps_255: bool, size: tuple[int, int] | None = None) -> np.ndarray:
    ids = _map(file, video_id, size=size).astype(np.int32)
    if not keeps_255:
        ids[ids == VOID] = 0
    return ids
