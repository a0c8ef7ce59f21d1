"""The export "CVAT for video 1.1": an XML with a track per object, and in it a shape per frame."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from pycocotools import mask as coco

from pipeline.datasets.json_entries import Entry, shown, whole_number
from pipeline.datasets.run_lengths import packed_mask
from pipeline.datasets.tracked_masks import TrackedMasks
from pipeline.errors import BadInput
from pipeline.file_names import composed, naturally
from pipeline.records import Mask

CURE = "Export the task again as 'CVAT for video 1.1'."
NUMBERED = re.compile(r"frame_([0-9]{6,})")     # how CVAT names the frames of a video file


class TrackedObject(NamedTuple):
    """One object of an export."""

    key: str
    label: str
    is_crowd: bool
    masks: Iterator[tuple[str, Mask | None]]        # name of a frame, run lengths


class XmlExport:
    """Raises BadInput for a file that is no XML, or that is an export without tracks."""

    def __init__(self, file: Path, video: str) -> None:
        self.file = file
        self.video = video
        try:
            self._content = ElementTree.parse(file).getroot()
        except OSError as error:
            raise BadInput("unreadable", f"{error.strerror}.", video=video, file=file,
                           cure="Give this user read permission.") from None
        except (ElementTree.ParseError, ValueError, LookupError) as error:      # also of encodings
            raise BadInput("bad-xml", f"the file is not valid XML ({error}).", video=video, file=file, cure=CURE
                           ) from None
        if self._content.tag != "annotations":
            raise BadInput("bad-xml", f"its outermost element is {shown(self._content.tag)}; that of CVAT's exports is "
                           "'annotations'.", video=video, file=file, cure=CURE)
        if self._content.find("image") is not None:
            raise BadInput("bad-xml", "it is an export 'CVAT for images', which does not tell which object is which in "
                           "the next frame.", video=video, file=file,
                           cure="Export the task as 'CVAT for video 1.1', with objects drawn as tracks.")

    def labels(self) -> list[str]:
        """The labels of the task or project, in its order."""
        return [composed(name.text.strip()) for name in self._content.findall("meta/*/labels/label/name") if name.text]

    def tracks(self, frames: Sequence[str], masks: TrackedMasks) -> Iterator[TrackedObject]:
        """The tracks; shapes without a mask are counted. frames: the names of the pictures in the order of time."""
        names = self._numbered(frames)
        self._refuse_other_size(masks)
        tracks = self._content.findall("track")
        times = Counter(track.get("id") for track in tracks)
        for index, track in enumerate(tracks):
            entry = self._entry(track.attrib, "track")
            key = str(entry.key("id")) if "id" in entry.values else f"number {index}"
            if times[track.get("id")] > 1:      # exports that were put into one file: each track is an object
                key = f"{key}, number {index} in the file"
            label = entry.values.get("label", "")       # a frame with an object without label loses its own
            yield TrackedObject(key, composed(label.strip()), False, self._masks(track, key, names, masks))

    def labelled(self, frames: Collection[str]) -> Collection[str]:
        """The frames that belong to the task: all of them."""
        return frames

    def _entry(self, values: Mapping[str, str], kind: str) -> Entry:
        return Entry(dict(values), kind, file=self.file, cure=CURE, video=self.video)

    def _numbered(self, frames: Sequence[str]) -> dict[int, str]:
        """Number of a frame -> its name: that in the name if CVAT named the frames, else the place in order.

        Raises BadInput where the place is not certain: where pictures are missing or were added, and where CVAT's
        order, that of the alphabet, is not the order of the numbers in the names.
        """
        numbers = [NUMBERED.fullmatch(name) for name in frames]
        if all(numbers):
            return {int(match[1]): name for match, name in zip(numbers, frames)}
        size = self._content.find("meta/*/size")
        listed = None if size is None else whole_number(size.text)
        if any(numbers) or listed not in (None, len(frames)):
            other = next(name for name, match in zip(frames, numbers) if not match)
            counted = f"it lists {listed} frames" if listed else "CVAT named the frames frame_000000 and so on"
            raise BadInput("frame-mismatch", f"{counted}, but there are {len(frames)} pictures, such as {other!r}, so "
                           "the numbers of frames in the XML cannot be found in the pictures.",
                           video=self.video, file=self.file, cure="Export the task again with 'Save images', as 'COCO "
                           "1.0' if frames were deleted, and keep only its pictures.")
        if not sorted(frames) == naturally(frames) == list(frames):
            raise BadInput("frame-mismatch", f"the names of its frames, such as {frames[-1]!r}, are in another order "
                           "as numbers than as words, so the numbers of frames in the XML have two meanings.",
                           video=self.video, file=self.file,
                           cure="Export the task as 'COCO 1.0', which names the frames.")
        return dict(enumerate(frames))

    def _refuse_other_size(self, masks: TrackedMasks) -> None:
        """Raise BadInput where the pictures do not have the size at which the task was labelled, if it is told."""
        told = [self._content.find(f"meta/*/original_size/{side}") for side in ("width", "height")]
        size = [None if side is None else whole_number(side.text) for side in told]
        if None not in size and size != [masks.width, masks.height]:
            raise BadInput("size-differs", f"the task was labelled at {size[0]}x{size[1]} pixels, but the pictures are "
                           f"{masks.width}x{masks.height}.", video=self.video, file=self.file,
                           cure="Export the task again with 'Save images', and use its pictures.")

    def _masks(self, track: ElementTree.Element, key: str, names: Mapping[int, str],
               masks: TrackedMasks) -> Iterator[tuple[str, Mask | None]]:
        shapes = [shape for shape in track if shape.tag != "attribute"]
        frames = [_frame(shape) for shape in shapes]
        for index, (shape, frame) in enumerate(zip(shapes, frames)):
            entry = self._entry(shape.attrib, f"{shape.tag} of track {key}")
            if frame is None:
                told = shown(entry.values.get("frame"))
                fault = entry.bad(f"the frame of {entry.name} is {told}; it must be a whole number from 0.")
                if not _lose_labels(frames, index, names, masks, fault):
                    raise fault
                continue
            fault = None
            try:
                if entry.flag("outside"):
                    continue
                if shape.tag not in ("polygon", "mask"):
                    masks.remarks["boxes without a mask" if shape.tag == "box" else
                                  f"shapes that are no mask ({shape.tag})"] += 1
                    continue
                mask = (_polygon if shape.tag == "polygon" else _pasted)(entry, masks)
            except ValueError as error:
                fault = error if isinstance(error, BadInput) else entry.bad(f"track {key}, frame {frame}: {error}",
                                                                            "bad-mask")
            if frame not in names:
                fault = entry.bad(f"track {key} is labelled in frame {frame}, but the pictures are the frames "
                                  f"{min(names)} to {max(names)}.", "missing-image")
                if not all(map(NUMBERED.fullmatch, names.values())):    # other pictures may be missing too
                    raise fault
                _lose_labels(frames, index, names, masks, fault)        # the number may be wrong
            if fault is None:
                yield names[frame], mask
            else:
                masks.unreadable(names.get(frame, f"frame_{frame:06d}"), fault)


def _frame(shape: ElementTree.Element) -> int | None:
    frame = whole_number(shape.get("frame"))
    return None if frame is None or frame < 0 else frame


def _lose_labels(frames: Sequence[int | None], index: int, names: Mapping[int, str], masks: TrackedMasks,
                 fault: BadInput) -> bool:
    """Void the pictures that a shape whose number is wrong may be of; whether there is one.

    CVAT lists a track in every frame, so it is a frame between those of its neighbours, or beside the only one.
    """
    before = next((frame for frame in frames[:index][::-1] if frame is not None), None)
    after = next((frame for frame in frames[index + 1:] if frame is not None), None)
    if before is None:
        between = [] if after is None else [after - 1]
    else:
        between = [before + 1] if after is None else range(before + 1, after)
    lost = [names[frame] for frame in between if frame in names]
    for name in lost:
        masks.unreadable(name, fault)
    return bool(lost)


def _polygon(shape: Entry, masks: TrackedMasks) -> Mask | None:
    numbers = [_number(part) for part in re.split("[;,]", shape.text("points"))]
    return packed_mask(numbers, height=masks.height, width=masks.width)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"a corner of the polygon is {shown(text)}; corners must be numbers of pixels.") from None


def _pasted(shape: Entry, masks: TrackedMasks) -> Mask | None:
    """A mask: the lengths of runs over the rows of its box, background first."""
    left, top, width, height = (shape.whole(field) for field in ("left", "top", "width", "height"))
    if min(left, top) < 0 or min(width, height) < 1 or left + width > masks.width or top + height > masks.height:
        raise ValueError(f"its box of {width}x{height} pixels at {left}, {top} does not lie inside the frame of "
                         f"{masks.width}x{masks.height}.")
    runs = [whole_number(part) for part in shape.text("rle").split(",")]
    if None in runs or min(runs) < 0 or sum(runs) != width * height:
        raise ValueError(f"its run lengths do not add up to the {width * height} pixels of its box.")
    inside = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    whole = np.zeros((masks.height, masks.width), np.uint8, order="F")
    whole[top:top + height, left:left + width] = inside
    packed = coco.encode(whole)
    return packed if coco.area(packed) else None
