"""Label maps of panoptic data sets: how PNGs store segment ids, and how the official tools choose the ids.

There are two codings. RGB: id = R + 256 G + 65536 B, and a json describes the ids. VIPSeg's raw release: one channel,
in which 0 is void, a value below 125 is a class number without instance, and a larger value is class number * 100 +
instance; the class number is the id in the data set + 1. Segment ids are the data set's own; the panoptic id of
`model/labels.py` is computed later, from class and track.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from model.labels import ClassTable
from pipeline.datasets.json_entries import Entry
from pipeline.errors import BadInput
from pipeline.foreign_files import read_file
from pipeline.images import decode_png, is_png, png_size
from pipeline.records import Segment

RAW_ARTEFACT = 200        # an error of the annotation tool that occurs in the release; counts as void
RAW_FIRST_INSTANCE = 125  # smaller values name a class without instance
RAW_HIGHEST_CLASS = 654   # id in the data set; its instances end at the last value of 16 bits
PALETTE = b"\3"           # colour type, byte 25 of a PNG


def rgb_of_ids(ids: np.ndarray) -> np.ndarray:
    """Segment ids, H W -> RGB-coded map, H W 3 uint8; the inverse of `images.ids_from_rgb`."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawCoding:
    """VIPSeg's raw coding for one class table; both arrays have an entry for each of the 65536 values."""

    ids: np.ndarray         # int32, value -> segment id; 0 void, -1 not a legal value
    classes: np.ndarray     # int32, segment id -> position in the class table; -1 for other numbers


def raw_coding(classes: ClassTable, *, artefact: bool) -> RawCoding:
    """All values of a stuff class become its class number, since stuff is one segment; a thing keeps its value as id.

    artefact: `RAW_ARTEFACT` is void, as in the release; otherwise it is an instance like every other value. A value
    from 100 to 124 is a class number where there is such a class, else an instance of the first class.
    Raises ValueError for a class whose instances do not fit 16 bits.
    """
    ids = np.full(1 << 16, -1, dtype=np.int32)
    class_of = ids.copy()
    for index, info in enumerate(classes.classes):
        class_number = info.dataset_id + 1
        if 100 * class_number >= len(ids):
            raise ValueError(f"class {info.name!r} has the id {info.dataset_id}; raw label maps store 100 * (id + 1) + "
                             f"instance in 16 bits, so ids go up to {RAW_HIGHEST_CLASS}.")
        instances = np.arange(100 * class_number, min(100 * class_number + 100, len(ids)))
        ids[instances] = instances if info.is_thing else class_number
        class_of[instances if info.is_thing else class_number] = index
    for index, info in enumerate(classes.classes):
        class_number = info.dataset_id + 1
        if class_number < RAW_FIRST_INSTANCE:
            ids[class_number] = class_number
            class_of[class_number] = index
    ids[[0, RAW_ARTEFACT] if artefact else [0]] = 0
    return RawCoding(ids=ids, classes=class_of)


def ids_in(ids: np.ndarray) -> list[int]:
    """The distinct values of a map, ascending. Only the start of each run of equal values is sorted, so it is fast."""
    flat = ids.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.unique(np.append(flat[starts], flat[:1])).tolist()


def read_label(path: Path, *, video: str, indexed: bool, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a label PNG: H W 3 uint8 RGB, or H W uint8/uint16.

    indexed: of a palette PNG, return the indices (as the raw coding uses them) instead of the colours. size: the
    (height, width) it must have. Raises `BadInput` for a file that is missing, unreadable, damaged or of another size.
    """
    try:
        data = read_file(path)
        if size is not None and is_png(data) and len(data) > 32 and png_size(data) != size:     # before memory is taken
            height, width = png_size(data)
            raise BadInput("size-differs", f"the label has {width}x{height} pixels, the video has {size[1]}x{size[0]}.",
                           cure="Resize frames, labels and json together.")
        label = decode_png(data)
        if indexed and data[25:26] == PALETTE:
            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(image)
        return label
    except FileNotFoundError:
        raise BadInput("missing-label", "the label file does not exist.", video=video, file=path,
                       cure="Copy the labels again, or remove the video from the split list.") from None
    except PermissionError:
        raise BadInput("unreadable", "this user may not read the label.", video=video, file=path,
                       cure="Give this user read permission.") from None
    except IsADirectoryError:
        raise BadInput("unreadable", "the label is a folder.", video=video, file=path,
                       cure="Remove the folder, or give it another name.") from None
    except BadInput as error:
        cure = "Copy or convert this label again." if error.reason == "corrupt-label" else error.cure
        raise BadInput(error.reason, error.what, video=video, file=path, cure=cure) from None
    except (OSError, SyntaxError, ValueError) as error:     # Pillow raises all three for damaged pictures
        raise BadInput("corrupt-label", f"{error}.", video=video, file=path,
                       cure="Copy or convert this label again.") from None


def listed_segments(infos: Mapping[str, list[Entry]], classes: ClassTable, *,
                    faults: dict[str, BadInput] | None = None) -> tuple[Segment, ...]:
    """The segments of all frames, each once, in the order in which they are first listed.

    infos: frame name -> its `segments_info` in the json. faults: gets the fault of a frame, whose segments are left
    out: an id that is void or listed twice, an unknown category, a field that is missing or of the wrong type, and a
    segment of another category or crowd flag than in most frames. Raises BadInput for these where it is None.
    """
    frames: dict[str, list[Segment]] = {}
    for name, listed in infos.items():
        try:
            frames[name] = _segments_of_frame(name, listed, classes)
        except BadInput as error:
            if faults is None:
                raise
            faults.setdefault(name, error)
    kinds: dict[int, Counter[Segment]] = defaultdict(Counter)
    for segment in (segment for listed in frames.values() for segment in listed):
        kinds[segment.id][segment] += 1
    segments = {id: counts.most_common(1)[0][0] for id, counts in kinds.items()}        # the first among equals
    for name, listed in frames.items() if faults is not None else ():
        for segment, info in zip(listed, infos[name]):
            if segment != (usual := segments[segment.id]):
                category, other = (classes.classes[each.class_index].name for each in (segment, usual))
                faults.setdefault(name, info.bad(
                    f"segment {segment.id} is {category!r} with iscrowd {segment.is_crowd:d} in frame {name!r}, but "
                    f"{other!r} with iscrowd {usual.is_crowd:d} in most frames.", "inconsistent-id"))
    return tuple(segments.values())


def _segments_of_frame(name: str, listed: list[Entry], classes: ClassTable) -> list[Segment]:
    ids = [info.whole("id") for info in listed]
    if len(set(ids)) != len(ids) or min(ids, default=1) <= 0:
        raise listed[0].bad(f"frame {name!r} lists the segment ids {sorted(ids)[:5]}...; they must be different and "
                            "above 0 (0 is void).", "bad-id")
    segments = []
    for id, info in zip(ids, listed):
        category = info.whole("category_id")
        if category not in classes.index_of:
            raise info.bad(f"segment {id} of frame {name!r} has the category {category}, which is not in the data "
                           "set's list of categories.", "unknown-category")
        segments.append(Segment(id=id, class_index=classes.index_of[category], is_crowd=info.flag("iscrowd")))
    return segments


class IdGenerator:
    """Chooses segment ids as the COCO panoptic tools do; like VIPSeg's converter, it needs one generator per video.

    The first instance of a class gets the base colour of the class; further instances of a thing class get a random
    unused colour near it. Stuff always has its base colour, which no other segment may take.
    """

    def __init__(self, classes: ClassTable, rng: np.random.Generator) -> None:
        self.classes = classes
        self.rng = rng
        self.taken = {(0, 0, 0)} | {info.color for info in classes.classes if not info.is_thing}

    def new_id(self, class_index: int) -> int:
        """The id of the next segment of a class. class_index: position in the class table."""
        info = self.classes.classes[class_index]
        color = info.color
        while info.is_thing and color in self.taken:
            nearby = np.array(info.color) + self.rng.integers(-30, 31, size=3)
            color = tuple(int(value) for value in nearby.clip(0, 255))
        self.taken.add(color)
        red, green, blue = color
        return red | green << 8 | blue << 16
