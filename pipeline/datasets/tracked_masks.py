"""Collects the masks of one video, object by object and frame by frame, into the record that all readers give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path

from pycocotools import mask as coco

from pipeline.datasets.folders import size_of_pictures
from pipeline.errors import BadInput
from pipeline.faulty_labels import without_faulty_labels
from pipeline.records import FrameRecord, Mask, Segment, VideoRecord


class TrackedMasks:
    """The objects of a video whose labels are run lengths. An object is known by any key; ids are 1, 2, ... in order.

    images: name of each frame -> its file, in the order of time. Raises BadInput where none can be read.
    """

    def __init__(self, video_id: str, images: Mapping[str, Path]) -> None:
        self.video_id = video_id
        self.images = images
        self.height, self.width = size_of_pictures(images.values(), video_id)
        self.remarks: Counter[str] = Counter()
        self._ids: dict[Hashable, int] = {}
        self._segments: dict[int, Segment] = {}
        self._masks: dict[str, dict[int, Mask]] = {name: {} for name in images}
        self._faults: dict[str, BadInput] = {}

    def add(self, frame: str, key: Hashable, class_index: int, mask: Mask | None, *, is_crowd: bool = False) -> None:
        """One mask of an object, as `packed_mask` gives it. Several in a frame are its parts; None is counted."""
        if mask is None:
            self.remarks["masks without a pixel"] += 1
            return
        id = self._ids.setdefault(key, len(self._ids) + 1)
        self._segments[id] = Segment(id=id, class_index=class_index, is_crowd=is_crowd)
        masks = self._masks[frame]
        masks[id] = coco.merge([masks[id], mask]) if id in masks else mask

    def unreadable(self, frame: str, fault: BadInput) -> None:
        """A mask, or the whole label, of a frame cannot be read, so the frame will have no label."""
        self._faults.setdefault(frame, fault)

    def record(self, labelled: Collection[str]) -> VideoRecord:
        """The record of the video. labelled: the frames that somebody labelled, whatever is in them.

        Raises the first fault where every labelled frame has one.
        """
        frames = tuple(FrameRecord(name=name, image=image, segment_ids=tuple(sorted(self._masks[name])),
                                   masks=dict(sorted(self._masks[name].items())) if name in labelled else None)
                       for name, image in self.images.items())
        return without_faulty_labels(VideoRecord(
            video_id=self.video_id, height=self.height, width=self.width, frames=frames,
            segments=tuple(self._segments.values()), remarks=self.remarks), self._faults)

    def frames_of_objects(self) -> list[int]:
        """In how many frames each object has a mask."""
        return list(Counter(id for masks in self._masks.values() for id in masks).values())
