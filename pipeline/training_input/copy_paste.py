"""Video copy-paste: segments of another video's clip (the donor) are pasted over every frame of a training clip.

The method is that of Ghiasi et al. 2021 (arXiv 2012.07177), extended to clips as in the released MaXTron code: all
things of the donor and a random part of its segments are pasted, at half the scale. Two defects of that code are
corrected, and kept under `official_compat`: here, a pasted segment never shares an id with a segment of the clip, and
segments that appear after the donor's first frame are pasted too. In `targets.py`, pasted stuff is joined to stuff of
the same class in the clip.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import cv2
import numpy as np

from model.labels import ClassTable
from pipeline.clips import AugmentConfig
from pipeline.records import Segment
from pipeline.shards import StoredVideo
from pipeline.training_input.targets import NO_OVERLAPS, Overlaps, stride_4


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPasteConfig:
    """How often segments are pasted, and how the donor's frames differ from those of the clip."""

    probability: float = 1.0        # as in the released code, which always pastes
    scale: float = 0.5              # factor on the smallest and the largest scale of the augmentation
    all_things: bool = True         # every thing is pasted; False: only those of the random part (Video-kMaX on VIPSeg)
    reverse: float | None = None    # probability that the donor runs backwards; None: that of the augmentation

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"copy_paste.probability is {self.probability}; give a value between 0 and 1")
        if self.scale <= 0:
            raise ValueError(f"copy_paste.scale is {self.scale}; it must be above 0")
        if self.reverse is not None and not 0 <= self.reverse <= 1:
            raise ValueError(f"copy_paste.reverse is {self.reverse}; give a probability between 0 and 1, or null")

    def of_donor(self, augment: AugmentConfig) -> AugmentConfig:
        """The augmentation of the donor's frames. augment: that of the clip."""
        low, high = augment.scale
        return replace(augment, scale=(low * self.scale, high * self.scale),
                       reverse=augment.reverse if self.reverse is None else self.reverse)


def draw_donor(rng: np.random.Generator, donors: Sequence[int], video: int) -> int:
    """One of `donors`, another one than `video` if there is another. All are positions in a shard set."""
    step = 1 + int(rng.integers(len(donors) - 1)) if len(donors) > 1 else 0
    return donors[(donors.index(video) + step) % len(donors)]


def choose_segments(ids: Iterable[np.ndarray], segments: Sequence[Segment], classes: ClassTable,
                    rng: np.random.Generator, *, overlaps: Overlaps = NO_OVERLAPS, all_things: bool = True,
                    official_compat: bool = False) -> list[Segment]:
    """Choose the segments of a donor clip to paste. ids: maps after its transform, one `H W` per frame.

    These are all things, unless `all_things` is false, and the first r of all segments in random order, with r uniform
    from none to all. Crowd is never pasted.

    official_compat: only segments in the donor's first frame.
    """
    seen = {segment for frame in (islice(ids, 1) if official_compat else ids)
            for id in np.flatnonzero(np.bincount(frame[::4, ::4].ravel())).tolist()
            for segment in overlaps.get(id, (id,))}
    present = [segment for segment in segments if segment.id in seen and not segment.is_crowd]
    drawn = rng.permutation(len(present))[:rng.integers(len(present) + 1)]
    return [segment for position, segment in enumerate(present)
            if position in drawn or (all_things and classes.is_thing[segment.class_index])]


def paste(frame: np.ndarray, ids: np.ndarray, real: np.ndarray, donor_frame: np.ndarray, donor_ids: np.ndarray,
          new_ids: np.ndarray) -> None:
    """Paste onto one frame in place: frame `3 H W` uint8, ids `h w` uint16 at stride 4, real pixels `H W` bool.

    donor_frame `3 H W` and donor_ids `H W` may be smaller, and lie at the top left. new_ids: uint16, donor id -> id in
    the clip, 0 if it is not pasted.
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
    """Give the chosen segments and overlaps among them ids above `after`. Also returns the table `new_ids` of `paste`.

    highest: the largest id in the donor's maps.
    """
    new_ids = np.zeros(max(256, highest + 1), dtype=np.uint16)
    moved = [replace(segment, id=after + segment.id) for segment in chosen]
    clip_ids = {segment.id: after + segment.id for segment in chosen}
    shared = {id: tuple(clip_ids[segment] for segment in members if segment in clip_ids)
              for id, members in overlaps.items()}
    for id in (*clip_ids, *(id for id, members in shared.items() if members)):
        new_ids[id] = after + id
    return moved, {after + id: members for id, members in shared.items() if members}, new_ids


def displaced(clip: StoredVideo, donor: StoredVideo, chosen: Sequence[Segment], classes: ClassTable) -> list[int]:
    """Things of the clip that become void under `official_compat`: those whose id in the data set is that of a pasted
    thing.

    VIPSeg's ids are colours, and the first instance of a class has the same colour in every video. The released code
    therefore often replaces the mask of an object that remains visible. (Its semantic labels still show the object.)
    """
    pasted = {donor.source_ids[segment.id - 1] for segment in chosen if classes.is_thing[segment.class_index]}
    return [segment.id for segment, source in zip(clip.segments, clip.source_ids) if source in pasted]
