"""Id maps of a clip and what their ids are -> `ClipTargets`."""

from __future__ import annotations

from collections.abc import Iterable

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


def clip_targets(ids: np.ndarray, segments: Iterable[Segment], classes: ClassTable) -> ClipTargets:
    """Targets of one clip from its id maps at stride 4, `t h w`, 0 void.

    A target is one segment over the whole clip, with at least one pixel in it. Stuff of one class is one target, crowd
    is void. Track ids are the segments' ids; those of merged stuff the smallest of them.
    Raises ValueError on an id that `segments` does not list. Overlapping masks cannot come as id maps.
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
    tubes = np.take(tube_of, ids)                                   # t h w
    masks = np.empty((len(targets), *ids.shape), dtype=bool)        # m t h w
    for position, mask in enumerate(masks):
        np.equal(tubes, position, out=mask)
    return ClipTargets(masks=torch.from_numpy(masks),
                       classes=torch.tensor([target.class_index for target in targets], dtype=torch.int64),
                       track_ids=torch.tensor([target.id for target in targets], dtype=torch.int64),
                       void=torch.from_numpy(tubes == VOID))
