"""What travels before batching: a video as a data set describes it, before any pixel is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from model.labels import ClassTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One object or region of a video, the same `id` in every frame."""

    id: int                 # in the data set's own numbering, above 0
    class_index: int        # position in the ClassTable
    is_crowd: bool = False  # not a target, not an error when predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRecord:
    """One frame on disk."""

    name: str                                 # as the data set calls it, without suffix
    image: Path                               # JPEG or PNG
    label: Path | None = None                 # id map; None where the data set has none, or keeps run lengths
    segment_ids: tuple[int, ...] = ()         # ids the annotation lists for this frame
    masks: Mapping[int, dict] | None = None   # id -> COCO run lengths (size, counts); may overlap; None: no such


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRecord:
    """One video in the order of time."""

    video_id: str
    height: int                          # pixels, of every frame
    width: int
    frames: tuple[FrameRecord, ...]
    segments: tuple[Segment, ...]        # as listed, or by id; empty where the split has no labels


class Dataset(Protocol):
    """A data set in its official layout on disk. Listing is cheap; reading one video touches only that video."""

    classes: ClassTable

    def video_ids(self) -> list[str]:
        """All videos of the split, sorted."""

    def read(self, video_id: str) -> VideoRecord:
        """Describe one video. Raises `BadInput` naming video, file and cure."""

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """H W int32: segment id of every pixel, 0 void. Only for data sets with id maps. Raises `BadInput`."""
