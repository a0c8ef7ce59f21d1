"""Records of a video as its data set describes it, before any pixel is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model.labels import ClassTable
from pipeline.errors import BadInput

Mask = Mapping[str, Any]        # COCO run lengths: `size` (height, width), and `counts` as bytes, a text or a list


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One object or region of a video. It has the same `id` in every frame."""

    id: int                 # in the data set's own numbering, above 0
    class_index: int        # position in the ClassTable
    is_crowd: bool = False  # neither a target, nor an error if it is predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRecord:
    """One frame on disk."""

    name: str                                 # the file name in the data set, without suffix
    image: Path                               # JPEG or PNG
    label: Path | None = None                 # id map; None if the data set has no labels or uses run lengths
    segment_ids: tuple[int, ...] = ()         # ids that the annotation lists for this frame
    masks: Mapping[int, Mask] | None = None   # id -> mask; masks may overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRecord:
    """One video; its frames are in the order of time."""

    video_id: str
    height: int                          # pixels, of every frame
    width: int
    frames: tuple[FrameRecord, ...]
    segments: tuple[Segment, ...]        # in the order of listing or of ids; empty without labels
    remarks: Mapping[str, int] = field(default_factory=dict)     # what was left out or changed -> how often
    faults: Mapping[str, BadInput] = field(default_factory=dict)    # frame that is left out or has no label -> why


class Dataset(Protocol):
    """A data set in its official layout on disk. Listing is cheap; reading one video touches only that video."""

    classes: ClassTable
    remarks: Mapping[str, int]      # what was left out of the whole split, such as "annotations of no listed video"

    def video_ids(self) -> list[str]:
        """All videos of the split, sorted."""

    def read(self, video_id: str) -> VideoRecord:
        """Describe one video. Raises `BadInput`, which names the video, the file and the cure."""

    def frame_ids(self, video: VideoRecord, frame: FrameRecord) -> np.ndarray:
        """H W int32: segment id of every pixel, 0 void. Only for data sets with id maps. Raises `BadInput`."""
