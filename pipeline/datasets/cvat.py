"""Videos that were labelled with CVAT: <split>/<video> is an unpacked export of one task, pictures included.

Two exports hold tracks: "CVAT for video 1.1" (annotations.xml) and "COCO 1.0" (a json in annotations/, in which objects
have a track_id). Every frame of the task counts as labelled. Source: docs.cvat.ai, "XML annotation format" and
"Formats".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pipeline.datasets.cvat_coco import CocoExport
from pipeline.datasets.cvat_xml import TrackedObject, XmlExport
from pipeline.datasets.folders import pictures_by_name, root_folder
from pipeline.datasets.own_folders import (
    all_videos,
    files_beside,
    files_in,
    folder_of_pictures,
    own_classes,
    videos_of,
)
from pipeline.datasets.tracked_masks import TrackedMasks
from pipeline.errors import BadInput
from pipeline.foreign_files import inside
from pipeline.records import FrameRecord, VideoRecord

XML = "annotations.xml"
Export = XmlExport | CocoExport


class Cvat:
    """One split; its videos are the folders in the folder of the split.

    Raises `FileNotFoundError` when the root or the split does not exist, `BadInput` for classes that cannot be read.
    """

    def __init__(self, root: str, *, split: str = "train") -> None:
        self.root = root_folder(root, name="cvat")
        self.split = split
        self._folders = videos_of(self.root, split)
        self.classes = own_classes("cvat", self.root, self._labels)
        self._class_of = {info.name: index for index, info in enumerate(self.classes.classes)}

    def video_ids(self) -> list[str]:
        """The names of the folders, sorted."""
        return sorted(self._folders)

    @property
    def remarks(self) -> Mapping[str, int]:
        """Files beside the folders of videos, which are left out."""
        return files_beside(self.root / self.split)

    def read(self, video_id: str) -> VideoRecord:
        """Describe one video; its masks are run lengths. Boxes and points have no mask and are counted.

        A frame with a mask that is none, or of a label outside the classes, has no label and is named among the faults.
        Raises `BadInput` for an export without tracks, or of frames that are not there.
        """
        folder = self._folders.get(video_id, self.root / self.split / video_id)
        images = pictures_by_name(
            folder_of_pictures(video_id, [folder / "images" / "default", folder / "images", folder]),
            roots=(self.root,), video=video_id)
        masks = TrackedMasks(video_id, images)
        export = _export(folder, video_id, root=self.root)
        for track in export.tracks(list(images), masks):
            for frame, mask in track.masks:
                if track.label in self._class_of:
                    masks.add(frame, track.key, self._class_of[track.label], mask, is_crowd=track.is_crowd)
                elif mask is not None:
                    masks.unreadable(frame, self._unknown(track, video_id, export.file))
        lengths = masks.frames_of_objects()
        if len(images) > 1 and (brief := lengths.count(1)):
            masks.remarks["objects in one frame only (in CVAT, 'Track' follows an object and 'Shape' does not)"] = brief
        return masks.record(export.labelled(images))

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """Raises `TypeError`: polygons may overlap. Read `FrameRecord.masks` instead."""
        raise TypeError("cvat has masks as run lengths and no id maps; read FrameRecord.masks")

    def _unknown(self, track: TrackedObject, video_id: str, file: Path) -> BadInput:
        return BadInput("unknown-category", f"track {track.key} has the label {track.label!r}, which is not one of the "
                        f"classes {', '.join(self._class_of)[:60]}.", video=video_id, file=file,
                        cure="Add it to the list of classes of this data set.")

    def _labels(self) -> Iterable[str]:
        """The labels of all tasks; an export that cannot be read is named when its video is."""
        for folder in all_videos(self.root):
            try:
                yield from _export(folder, folder.name, root=self.root).labels()
            except BadInput:
                continue


def _export(folder: Path, video: str, *, root: Path) -> Export:
    """The annotations of a task. Raises BadInput "missing-label" without any, and where there are several."""
    if os.path.isfile(folder / XML):
        return XmlExport(inside(folder / XML, root), video)
    files = [place / name for place in (folder / "annotations", folder) for name in files_in(place, video)
             if name.lower().endswith(".json")]
    if len(files) != 1:
        listed = f"{len(files)} json files" if files else "no json"
        raise BadInput("missing-label", f"it holds no {XML} and {listed} in annotations/.", video=video, file=folder,
                       cure="Export the task of this video as 'CVAT for video 1.1' or 'COCO 1.0', and unpack it here.")
    return CocoExport(inside(files[0], root), video)
