"""Label maps of panoptic data sets: how segment ids are stored in PNGs, how they are made, and whether they are sound.

Two codings exist. RGB: id = R + 256 G + 65536 B, explained by a json. VIPSeg's raw release: one channel, 0 void, below
125 the class number without instance, above it class number * 100 + instance; class number = id in the data set + 1.
A segment id is data-set numbering; the panoptic id of `model/labels.py` is made later, from class and track.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from model.labels import ClassTable
from pipeline.errors import BadInput
from pipeline.records import FrameRecord, VideoRecord

RAW_ARTEFACT = 200        # a slip of the annotation tool that occurs in the release; void
RAW_FIRST_INSTANCE = 125  # smaller values name a class without instance
PALETTE = 3               # colour type in byte 25 of a PNG


def ids_of_rgb(rgb: np.ndarray) -> np.ndarray:
    """RGB-coded map, H W 3 uint8 -> segment ids, H W int32."""
    # Red, green, blue, alpha in memory are the bytes of a little-endian number from the lowest up.
    ids = cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA).view("<i4")[..., 0]    # H W
    ids &= 0xFFFFFF
    return ids


def rgb_of_ids(ids: np.ndarray) -> np.ndarray:
    """Segment ids, H W -> RGB-coded map, H W 3 uint8; undoes `ids_of_rgb`."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


def raw_table(classes: ClassTable) -> np.ndarray:
    """Lookup for VIPSeg's raw coding: value -> segment id (65536 int32; 0 void, -1 not a legal value).

    All values of a stuff class become its class number, since stuff is one segment; a thing keeps its value as id.
    """
    table = np.full(1 << 16, -1, dtype=np.int32)
    for info in classes.classes:
        number = info.dataset_id + 1
        instances = np.arange(max(100 * number, RAW_FIRST_INSTANCE), 100 * number + 100)
        table[instances] = instances if info.is_thing else number
        if number < RAW_FIRST_INSTANCE:
            table[number] = number
    table[[0, RAW_ARTEFACT]] = 0
    return table


def raw_dataset_class(segment_id: int) -> int:
    """Segment id of the raw coding -> the data set's own class id."""
    return (segment_id if segment_id < RAW_FIRST_INSTANCE else segment_id // 100) - 1


def ids_in(ids: np.ndarray) -> list[int]:
    """The different values of a map, ascending. Looks only where a run of equal values starts, so it costs one pass."""
    flat = ids.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.unique(np.append(flat[starts], flat[:1])).tolist()


def read_label(path: Path, *, video: str) -> np.ndarray:
    """A label PNG as stored: H W 3 uint8 RGB, or H W uint8/uint16. Raises `BadInput` for anything but a sound PNG."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadInput("missing-label", "the label file does not exist.", video=video, file=path,
                       cure="Copy the labels again, or take the video off the split list.") from None
    except OSError as error:
        raise BadInput("unreadable", f"{error.strerror}.", video=video, file=path,
                       cure="Give this user read permission.") from None
    is_png = data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) > 25
    if is_png and data[25] == PALETTE:     # OpenCV would turn the indices into colours
        return _palette_indices(data, path, video)
    label = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if is_png else None
    if label is None:
        raise _corrupt(path, video, f"{len(data)} bytes that are not a complete PNG.")
    return label if label.ndim == 2 else cv2.cvtColor(label[..., :3], cv2.COLOR_BGR2RGB)


def check_frame(video: VideoRecord, frame: FrameRecord, ids: np.ndarray) -> None:
    """Compare a label map (H W segment ids) with what the annotation lists for the frame.

    Raises `BadInput`: "unlisted-id" for pixels of an id the annotation does not list, "no-pixels" for a listed
    segment that has none. Frames without segments must be all void.
    """
    drawn, listed = set(ids_in(ids)) - {0}, set(frame.segment_ids)
    if drawn - listed:
        raise BadInput("unlisted-id", f"the label map holds the ids {_some(drawn - listed)}, which the annotation of "
                       f"frame {frame.name!r} does not list.", video=video.video_id, file=frame.label,
                       cure="Make json and label maps from the same run of the converter.")
    if listed - drawn:
        raise BadInput("no-pixels", f"the annotation of frame {frame.name!r} lists the segments "
                       f"{_some(listed - drawn)}, which have no pixel.", video=video.video_id, file=frame.label,
                       cure="Make json and label maps from the same run of the converter (resizing labels by "
                            "interpolation also does this).")


class IdGenerator:
    """Segment ids in the way of the COCO panoptic tools, one generator per video (`VIPSeg` conversion).

    A class gets its base colour first; more instances of a thing class get a random unused colour near it. Stuff
    always keeps its base colour, which no other segment may take.
    """

    def __init__(self, classes: ClassTable, rng: np.random.Generator) -> None:
        self.classes, self.rng = classes, rng
        self.taken = {(0, 0, 0)} | {info.color for info in classes.classes if not info.is_thing}

    def new_id(self, class_index: int) -> int:
        """The id of the next segment of a class (position in the table)."""
        info = self.classes.classes[class_index]
        color = info.color
        while info.is_thing and color in self.taken:
            nearby = np.array(info.color) + self.rng.integers(-30, 31, size=3)
            color = tuple(int(value) for value in nearby.clip(0, 255))
        self.taken.add(color)
        red, green, blue = color
        return red | green << 8 | blue << 16


def _palette_indices(data: bytes, path: Path, video: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image)
    except OSError as error:
        raise _corrupt(path, video, f"{error}.") from None


def _corrupt(path: Path, video: str, what: str) -> BadInput:
    return BadInput("corrupt-label", what, video=video, file=path, cure="Copy or convert this label file again.")


def _some(ids: Iterable[int]) -> str:
    ids = sorted(ids)
    return f"{ids[:5]}{f' and {len(ids) - 5} more' if len(ids) > 5 else ''}"
