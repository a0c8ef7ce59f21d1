"""A data set of a few tiny videos on disk, which tests may damage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pycocotools import mask as coco

from model.labels import ClassInfo, ClassTable
from pipeline.images import decode_png, encode_jpeg, encode_png, ids_from_rgb
from pipeline.records import FrameRecord, Segment, VideoRecord

CLASSES = ClassTable("toy", (ClassInfo(0, "grass", False, (0, 200, 0)), ClassInfo(1, "cow", True, (99, 0, 0)),
                             ClassInfo(2, "sky", False, (0, 0, 250)), ClassInfo(3, "dog", True, (9, 9, 9))))
# Two cows, a dog, and grass in two segments, with ids as in RGB-coded label maps.
SEGMENTS = (Segment(id=7, class_index=0), Segment(id=300, class_index=1), Segment(id=70_000, class_index=1),
            Segment(id=70_001, class_index=3, is_crowd=True), Segment(id=16_000_000, class_index=0))


@dataclass(frozen=True)
class ToyVideos:
    """Videos `name: frames` under `root` with RGB-coded label maps, or with run lengths where masks=True."""

    root: Path
    lengths: dict[str, int]
    height: int = 24
    width: int = 40
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)      # of videos with another height and width
    masks: bool = False
    segments: tuple[Segment, ...] = SEGMENTS
    classes: ClassTable = CLASSES
    remarks: ClassVar[Mapping[str, int]] = {}

    def video_ids(self) -> list[str]:
        return sorted(self.lengths)

    def size(self, video_id: str) -> tuple[int, int]:
        return self.sizes.get(video_id, (self.height, self.width))

    def image(self, video_id: str, frame: int) -> Path:
        return self.root / video_id.replace("/", "+") / f"{3 * frame:05d}.jpg"

    def label(self, video_id: str, frame: int) -> Path:
        return self.image(video_id, frame).with_suffix(".png")

    def read(self, video_id: str) -> VideoRecord:
        frames = tuple(self._frame(video_id, frame) for frame in range(self.lengths[video_id]))
        height, width = self.size(video_id)
        return VideoRecord(video_id=video_id, height=height, width=width, frames=frames, segments=self.segments)

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        return ids_from_rgb(decode_png(frame.label.read_bytes()))

    def _frame(self, video_id: str, frame: int) -> FrameRecord:
        image = self.image(video_id, frame)
        label = self.label(video_id, frame)
        if self.masks:
            masks = json.loads(image.with_suffix(".json").read_text())
            return FrameRecord(name=image.stem, image=image, segment_ids=tuple(map(int, masks)),
                               masks={int(id): mask for id, mask in masks.items()})
        return FrameRecord(name=image.stem, image=image, label=label,
                           segment_ids=tuple(segment.id for segment in self.segments))


class Described(ToyVideos):
    """A ToyVideos whose `read` returns a given record."""

    def __init__(self, data: ToyVideos, video: VideoRecord | None) -> None:
        super().__init__(data.root, data.lengths)
        object.__setattr__(self, "video", video)

    def read(self, video_id: str) -> VideoRecord | None:
        return self.video


def toy_map(video_id: str, frame: int, height: int, width: int, segments=SEGMENTS) -> np.ndarray:
    """H W int32 ids: one vertical stripe per segment and one for void, which move by one pixel per frame."""
    ids = np.array([0] + [segment.id for segment in segments], dtype=np.int32)
    stripes = (np.arange(width) + frame + len(video_id)) * len(ids) // width % len(ids)
    return np.broadcast_to(ids[stripes], (height, width)).copy()


def toy_videos(root: Path, lengths: dict[str, int], **kwargs) -> ToyVideos:
    """Write the files of a ToyVideos."""
    data = ToyVideos(root, lengths, **kwargs)
    rng = np.random.default_rng(0)
    for video_id, length in lengths.items():
        for frame in range(length):
            path = data.image(video_id, frame)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_jpeg(rng.integers(0, 255, (*data.size(video_id), 3), dtype=np.uint8)))
            ids = toy_map(video_id, frame, *data.size(video_id), data.segments)
            if data.masks:
                path.with_suffix(".json").write_text(json.dumps(_run_lengths(ids, data.segments)))
            else:
                write_label(data.label(video_id, frame), ids)
    return data


def write_label(path: Path, ids: np.ndarray) -> None:
    """Write segment ids, H W, as an RGB-coded PNG."""
    path.write_bytes(encode_png(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)))


def without(data: ToyVideos, video_id: str) -> ToyVideos:
    """The same data set without one of its videos."""
    return replace(data, lengths={id: length for id, length in data.lengths.items() if id != video_id})


def _run_lengths(ids: np.ndarray, segments) -> dict:
    """Run lengths of masks that overlap, since each segment also covers the top row."""
    run_lengths = {}
    for segment in segments:
        mask = ids == segment.id
        mask[0] = True
        packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        run_lengths[segment.id] = {"size": list(map(int, packed["size"])), "counts": packed["counts"].decode()}
    return run_lengths
