"""Id maps of a clip and what their ids are -> `ClipTargets`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from model.contracts import ClipTargets
from model.labels import VOID, ClassTable
from pipeline.records import Segment


def at_stride_4(pixels: np.ndarray) -> np.ndarray:
    """Every fourth pixel of the last two axes of network input, `... H W` -> `... h w`; a view, nothing is mixed.

    An odd side (1 + 32 k) starts at pixel 0, where the feature maps' corners lie (align_corners, as kMaX). An even side
    starts at 2, the middle of each cell of four; at 0 its labels would lie half a cell off the features.
    """
    rows, columns = (0 if side % 2 else 2 for side in pixels.shape[-2:])
    return pixels[..., rows::4, columns::4]


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
    tubes = torch.from_numpy(tube_of[ids])                                              # t h w
    positions = torch.arange(len(targets), dtype=torch.int16)
    return ClipTargets(masks=tubes == positions[:, None, None, None],                   # m t h w
                       classes=torch.tensor([target.class_index for target in targets], dtype=torch.int64),
                       track_ids=torch.tensor([target.id for target in targets], dtype=torch.int64),
                       void=tubes == VOID)
