"""Video copy-paste: segments of another video's clip, pasted over every frame of a training clip.

Ghiasi et al. 2021 (arXiv 2012.07177) for clips, as the released MaXTron code trains: all things of the donor and a
random part of its segments, at half the scale. Two defects are put right, and kept under `official_compat`: a pasted
segment never shares an id with the clip's own, and segments count that appear after the donor's first frame. Stuff of a
class that is there already becomes one target with it in `targets.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from model.labels import ClassTable
from pipeline.records import Segment
from pipeline.shards import StoredVideo
from pipeline.training_input.targets import NO_OVERLAPS, Overlaps, stride_4


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPasteConfig:
    """How often, and at which part of the usual scales."""

    probability: float = 1.0    # the released code's switch is always on
    scale: float = 0.5          # of the augmentation's smallest and largest scale

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"copy_paste.probability is {self.probability}; it lies between 0 and 1")
        if self.scale <= 0:
            raise ValueError(f"copy_paste.scale is {self.scale}; it must be above 0")


def choose_segments(ids: Sequence[np.ndarray], segments: Sequence[Segment], classes: ClassTable,
                    rng: np.random.Generator, *, overlaps: Overlaps = NO_OVERLAPS,
                    official_compat: bool = False) -> list[Segment]:
    """Which segments of a donor clip (ids after its transform, one `H W` per frame) are pasted.

    Every thing, and of all segments in random order the first r, r uniform from none to all. Crowd stays behind.

    official_compat: only what the donor's first frame shows.
    """
    seen = {segment for frame in (ids[:1] if official_compat else ids)
            for id in np.flatnonzero(np.bincount(frame[::4, ::4].ravel())).tolist()
            for segment in overlaps.get(id, (id,))}
    present = [segment for segment in segments if segment.id in seen and not segment.is_crowd]
    drawn = rng.permutation(len(present))[:rng.integers(len(present) + 1)]
    return [segment for position, segment in enumerate(present)
            if position in drawn or classes.is_thing[segment.class_index]]


def paste(frame: np.ndarray, ids: np.ndarray, real: np.ndarray, donor_frame: np.ndarray, donor_ids: np.ndarray,
          new_ids: np.ndarray) -> None:
    """Paste one frame in place: frame `3 H W` uint8, ids `h w` uint16 at stride 4, real pixels `H W` bool.

    donor_frame `3 H W` and donor_ids `H W` may be smaller (top left). new_ids: uint16, donor id -> id here, or 0: not
    pasted.
    """
    height, width = donor_ids.shape
    pasted = cv2.LUT(donor_ids, new_ids) if donor_ids.dtype == np.uint8 else np.take(new_ids, donor_ids)    # H W
    mask = pasted != 0
    for plane, donor_plane in zip(frame, donor_frame):
        cv2.copyTo(donor_plane[:height, :width], mask.view(np.uint8), plane[:height, :width])
    real[:height, :width] |= mask
    pasted = pasted[stride_4(real.shape)]                                                                   # h w
    np.copyto(ids[:pasted.shape[0], :pasted.shape[1]], pasted, where=pasted != 0)


def renumber(chosen: Sequence[Segment], *, after: int, highest: int, overlaps: Overlaps = NO_OVERLAPS
             ) -> tuple[list[Segment], dict[int, tuple[int, ...]], np.ndarray]:
    """Chosen segments and the overlaps among them, with ids moved beyond `after`, and the table `paste` reads: donor
    id -> id here, 0: not pasted.

    highest: the largest id the donor's maps may hold.
    """
    new_ids = np.zeros(max(256, highest + 1), dtype=np.uint16)
    moved = [replace(segment, id=after + segment.id) for segment in chosen]
    here = {segment.id: after + segment.id for segment in chosen}
    shared = {id: tuple(here[segment] for segment in members if segment in here) for id, members in overlaps.items()}
    for id in (*here, *(id for id, members in shared.items() if members)):
        new_ids[id] = after + id
    return moved, {after + id: members for id, members in shared.items() if members}, new_ids


def displaced(clip: StoredVideo, donor: StoredVideo, chosen: Sequence[Segment], classes: ClassTable) -> list[int]:
    """The clip's own things that become void under `official_compat`: those with the data set's id of a pasted thing.

    VIPSeg's ids are colours, and the first instance of a class has the same one in every video, so the released code
    often pastes over the mask of an object without covering it. (Its semantic labels still show the object.)
    """
    pasted = {donor.source_ids[segment.id - 1] for segment in chosen if classes.is_thing[segment.class_index]}
    return [segment.id for segment, source in zip(clip.segments, clip.source_ids) if source in pasted]
