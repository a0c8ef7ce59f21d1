"""Label maps of panoptic data sets: how segment ids are stored in PNGs, and how the official tools make them.

Two codings exist. RGB: id = R + 256 G + 65536 B, explained by a json. VIPSeg's raw release: one channel, 0 void, below
125 the class number without instance, above it class number * 100 + instance; class number = id in the data set + 1.
A segment id is data-set numbering; the panoptic id of `model/labels.py` is made later, from class and track.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from model.labels import ClassTable
from pipeline.errors import BadInput
from pipeline.images import decode_png
from pipeline.records import Segment

RAW_ARTEFACT = 200        # a slip of the annotation tool that occurs in the release; void
RAW_FIRST_INSTANCE = 125  # smaller values name a class without instance
PALETTE = b"\3"           # colour type, byte 25 of a PNG


def rgb_of_ids(ids: np.ndarray) -> np.ndarray:
    """Segment ids, H W -> RGB-coded map, H W 3 uint8; undoes `images.ids_from_rgb`."""
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


def read_label(path: Path, *, video: str, indexed: bool, size: tuple[int, int] | None = None) -> np.ndarray:
    """A label PNG: H W 3 uint8 RGB, or H W uint8/uint16.

    indexed: a palette PNG stands for its indices, as in the raw coding, not for its colours. size: H W it must have.
    Raises `BadInput` for a file that is missing, unreadable, not a sound PNG, or of another size.
    """
    label = _decoded_label(path, video=video, indexed=indexed)
    if size is not None and label.shape[:2] != size:
        raise BadInput("size-differs", f"the label is {label.shape[1]}x{label.shape[0]} pixels, the video "
                       f"{size[1]}x{size[0]}.", video=video, file=path,
                       cure="Resize frames, labels and json together.")
    return label


def _decoded_label(path: Path, *, video: str, indexed: bool) -> np.ndarray:
    try:
        data = path.read_bytes()
        if indexed and data[25:26] == PALETTE:
            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(image)
        return decode_png(data)
    except FileNotFoundError:
        raise BadInput("missing-label", "the label file does not exist.", video=video, file=path,
                       cure="Copy the labels again, or take the video off the split list.") from None
    except PermissionError:
        raise BadInput("unreadable", "this user may not read the label.", video=video, file=path,
                       cure="Give read permission.") from None
    except (BadInput, OSError) as error:    # Pillow raises OSError for damaged pictures
        raise BadInput("corrupt-label", getattr(error, "what", f"{error}."), video=video, file=path,
                       cure="Copy or convert this label again.") from None


def listed_segments(infos: Mapping[str, list[dict]], classes: ClassTable, *,
                    refuse: Callable[[str, str], BadInput]) -> tuple[Segment, ...]:
    """The segments of all frames, each once, in the order of listing.

    infos: frame name -> its `segments_info` in the json.
    refuse: (reason, what) -> the error to raise for ids that are void, listed twice, of an unknown category, or that
    change their category or crowd flag. Raises KeyError or TypeError for entries that lack or mistype a field.
    """
    segments: dict[int, Segment] = {}
    for name, listed in infos.items():
        ids = [info["id"] for info in listed]
        if len(set(ids)) != len(ids) or min(ids, default=1) <= 0:
            raise refuse("bad-id", f"frame {name!r} lists the segment ids {sorted(ids)[:5]}...; they must be different "
                         f"and above 0, which is void.")
        for info in listed:
            if info["category_id"] not in classes.index_of:
                raise refuse("unknown-category", f"segment {info['id']} of frame {name!r} has the category "
                             f"{info['category_id']}, which the data set's categories do not have.")
            segment = Segment(id=info["id"], class_index=classes.index_of[info["category_id"]],
                              is_crowd=bool(info.get("iscrowd", 0)))
            if segments.setdefault(segment.id, segment) != segment:
                raise refuse("inconsistent-id", f"segment {segment.id} changes its category or crowd flag in frame "
                             f"{name!r}; a segment keeps both through the video.")
    return tuple(segments.values())


class IdGenerator:
    """Segment ids in the way of the COCO panoptic tools, one generator per video as VIPSeg's converter does.

    A class gets its base colour first; more instances of a thing class get a random unused colour near it. Stuff
    always keeps its base colour, which no other segment may take.
    """

    def __init__(self, classes: ClassTable, rng: np.random.Generator) -> None:
        self.classes = classes
        self.rng = rng
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
