"""Id maps of a clip, and what their ids are -> its targets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from model.contracts import ClipTargets
from model.labels import VOID, ClassTable
from pipeline.records import Segment


def stride_4(size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of network input, (height, width), at which labels are taken: every fourth, nothing is mixed.

    An odd side (1 + 32 k) starts at pixel 0, where the feature maps' corners lie (align_corners, as kMaX). An even side
    starts at 2, the middle of each cell of four; at 0 its labels would lie half a cell off the features.
    """
    height, width = size
    return slice(0 if height % 2 else 2, None, 4), slice(0 if width % 2 else 2, None, 4)


def at_stride_4(pixels: np.ndarray) -> np.ndarray:
    """Network input at stride 4, `... H W` -> `... h w`; a view."""
    return pixels[..., *stride_4(pixels.shape[-2:])]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTubes:
    """Targets of one clip in small: one map, as panoptic tubes do not overlap."""

    tubes: np.ndarray               # t h w    int16 position in `classes`, -1 void; at stride 4
    classes: tuple[int, ...]        # m
    track_ids: tuple[int, ...]      # m        unique in the video

    def targets(self) -> ClipTargets:
        """The same as masks."""
        masks = np.empty((len(self.classes), *self.tubes.shape), dtype=bool)        # m t h w
        for position, mask in enumerate(masks):
            np.equal(self.tubes, position, out=mask)
        return ClipTargets(masks=torch.from_numpy(masks), classes=torch.tensor(self.classes, dtype=torch.int64),
                           track_ids=torch.tensor(self.track_ids, dtype=torch.int64),
                           void=torch.from_numpy(self.tubes == VOID))


def clip_tubes(ids: np.ndarray, segments: Iterable[Segment], classes: ClassTable) -> ClipTubes:
    """Targets of one clip from its id maps at stride 4, `t h w`, 0 void.

    A target is one segment over the whole clip, with at least one pixel in it. Stuff of one class is one target, crowd
    is void. Track ids are the segments' ids; those of merged stuff the smallest of them.
    Raises ValueError on an id that `segments` does not list.
    """
    present = np.flatnonzero(np.bincount(ids.ravel()))
    listed = {segment.id: segment for segment in segments}
    if unknown := set(present.tolist()) - listed.keys() - {0}:
        raise ValueError(f"the id maps hold {sorted(unknown)}, which the video's segments do not list; verify the "
                         "shards and make the damaged ones again")
    tube_of = np.full(int(present[-1]) + 1, VOID, dtype=np.int16)       # segment id -> position among the targets
    targets: list[Segment] = []
    stuff: dict[int, int] = {}                                          # class -> position
    for segment in (listed[id] for id in present.tolist() if id and not listed[id].is_crowd):
        tube_of[segment.id] = len(targets)
        if not classes.is_thing[segment.class_index]:
            tube_of[segment.id] = stuff.setdefault(segment.class_index, len(targets))
        if tube_of[segment.id] == len(targets):
            targets.append(segment)
    return ClipTubes(tubes=np.take(tube_of, ids), classes=tuple(target.class_index for target in targets),
                     track_ids=tuple(target.id for target in targets))
