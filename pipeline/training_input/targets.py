"""Id maps of a clip, and the segments of their ids -> its targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

import numpy as np
import torch

from model.contracts import ClipTargets
from model.labels import FIRST_OVERLAP, VOID, ClassTable
from pipeline.records import Segment

Overlaps = Mapping[int, tuple[int, ...]]    # id of shared pixels -> ids of the segments that share them
NO_OVERLAPS: Overlaps = MappingProxyType({})


def stride_4(size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of network input (height, width) at which labels are taken: every fourth, without averaging.

    An odd side (1 + 32 k) starts at pixel 0, where the corner of the feature map is (align_corners, as in kMaX). An
    even side starts at 2, the middle of each cell of four; at 0, labels would be half a cell away from the features.
    """
    height, width = size
    return slice(0 if height % 2 else 2, None, 4), slice(0 if width % 2 else 2, None, 4)


def at_stride_4(pixels: np.ndarray) -> np.ndarray:
    """Network input at stride 4, `... H W` -> `... h w`; a view."""
    return pixels[..., *stride_4(pixels.shape[-2:])]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTubes:
    """Targets of one clip in compact form: one integer map, even if tubes overlap."""

    tubes: np.ndarray                           # t h w    int16 position in `classes`, -1 void, -2 - s overlap s
    classes: tuple[int, ...]                    # m
    track_ids: tuple[int, ...]                  # m        unique in the video
    overlaps: tuple[tuple[int, ...], ...] = ()  # s        positions of the tubes that share the pixel
    unlabelled: tuple[int, ...] = ()            # positions of the frames without a label; they are void

    def targets(self) -> ClipTargets:
        """The same targets as masks."""
        masks = np.empty((len(self.classes), *self.tubes.shape), dtype=bool)        # m t h w
        for position, mask in enumerate(masks):
            np.equal(self.tubes, position, out=mask)
        for index, members in enumerate(self.overlaps):
            shared = self.tubes == FIRST_OVERLAP - index
            for position in members:
                masks[position] |= shared
        unlabelled = None
        if self.unlabelled:
            unlabelled = torch.zeros(len(self.tubes), dtype=torch.bool)
            unlabelled[list(self.unlabelled)] = True
        return ClipTargets(masks=torch.from_numpy(masks), classes=torch.tensor(self.classes, dtype=torch.int64),
                           track_ids=torch.tensor(self.track_ids, dtype=torch.int64),
                           void=torch.from_numpy(self.tubes == VOID), unlabelled=unlabelled)


@dataclass(frozen=True, slots=True, kw_only=True)
class TubeNumbers:
    """The tube of each id in some id maps: one tube per thing and one per stuff class; crowd is void.

    A track id is the id of its segment, or the smallest id of merged stuff.
    """

    tube_of_id: np.ndarray                      # highest id + 1    int16, coded as `ClipTubes.tubes`
    classes: tuple[int, ...]                    # m
    track_ids: tuple[int, ...]                  # m
    overlaps: tuple[tuple[int, ...], ...]       # s


def number_tubes(ids: Iterable[int], segments: Iterable[Segment], classes: ClassTable, *,
                 overlaps: Overlaps = NO_OVERLAPS) -> TubeNumbers:
    """Number the tubes of all segments that have or share one of `ids`, in the order of the segments' ids.

    Raises ValueError for an id that is in neither `segments` nor `overlaps`.
    """
    listed = {segment.id: segment for segment in segments}
    members = {id: overlaps.get(id, (id,)) for id in sorted(ids) if id}
    present = sorted(set(chain.from_iterable(members.values())))
    if unknown := [id for id in present if id not in listed]:
        raise ValueError(f"the id maps hold {unknown}, which the video's segments do not list; verify the shards and "
                         "make the damaged ones again")
    tube_of: dict[int, int] = {}            # segment id -> its tube
    targets: list[Segment] = []
    stuff: dict[int, int] = {}              # class -> its tube
    for segment in (listed[id] for id in present if not listed[id].is_crowd):
        is_thing = classes.is_thing[segment.class_index]
        tube_of[segment.id] = len(targets) if is_thing else stuff.setdefault(segment.class_index, len(targets))
        if tube_of[segment.id] == len(targets):
            targets.append(segment)
    tube_of_id = np.full(max(members, default=0) + 1, VOID, dtype=np.int16)
    overlap_index: dict[tuple[int, ...], int] = {}
    for id, shared in members.items():
        tubes = tuple(sorted({tube_of[segment] for segment in shared if segment in tube_of}))
        if len(tubes) > 1:
            tube_of_id[id] = FIRST_OVERLAP - overlap_index.setdefault(tubes, len(overlap_index))
        elif tubes:
            tube_of_id[id] = tubes[0]
    return TubeNumbers(tube_of_id=tube_of_id, classes=tuple(target.class_index for target in targets),
                       track_ids=tuple(target.id for target in targets), overlaps=tuple(overlap_index))


def clip_tubes(ids: np.ndarray, segments: Iterable[Segment], classes: ClassTable, *,
               overlaps: Overlaps = NO_OVERLAPS) -> ClipTubes:
    """Targets of one clip from its id maps at stride 4, `t h w`, 0 void.

    A target is one segment over the whole clip, with at least one pixel. All stuff of a class is one target, and crowd
    is void. overlaps: ids that several segments share. Raises ValueError for an id that is not listed.
    """
    present = np.flatnonzero(np.bincount(ids.ravel())).tolist()
    numbers = number_tubes(present, segments, classes, overlaps=overlaps)
    return ClipTubes(tubes=np.take(numbers.tube_of_id, ids), classes=numbers.classes, track_ids=numbers.track_ids,
                     overlaps=numbers.overlaps)
