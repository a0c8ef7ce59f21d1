"""Training clips that hold too little: each is refused, and another one is drawn in its place.

Sources: `SeqRandomCropWithDepth` and `VideoCollect` of lxtGH/Tube-Link (datasets/pipelines), after which the data set
takes any other clip (`_rand_another`); the data set mapper of bytedance/kmax-deeplab, which takes any other image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.datasets.id_maps import ids_in
from pipeline.shards import StoredVideo


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalConfig:
    """The clips that are refused. To find them, id maps are decoded twice.

    Objects are all segments but crowd: also stuff, if a data set has any.
    """

    empty: Literal["", "first", "any"] = ""     # the first frame, or any frame, whose crop meets no object's box
    labelled: int | None = None     # at most so many labelled pixels at stride 4, pasted ones included

    def __post_init__(self) -> None:
        if not self.empty and self.labelled is None:
            raise ValueError("stage_one.input.refuse has no rule; set its empty or labelled, or "
                             "stage_one.input.refuse=null")
        if self.labelled is not None and self.labelled < 0:
            raise ValueError(f"stage_one.input.refuse.labelled is {self.labelled}; give a number of pixels, or null")


def objects_of(video: StoredVideo) -> np.ndarray:
    """highest id + 1, bool: the ids that stand for an object."""
    is_object = np.zeros(video.highest_id + 1, dtype=bool)
    is_object[[segment.id for segment in video.segments if not segment.is_crowd]] = True
    for id, members in video.overlaps.items():
        is_object[id] = is_object[list(members)].any()
    return is_object


def meets_object(ids: np.ndarray, box: tuple[int, int, int, int], video: StoredVideo) -> bool:
    """Whether the part `box` (top, left, bottom, right) of an id map, H W, meets the bounding box of any object.

    The object itself may lie beside it, as in the official code, which looks at boxes alone.
    """
    top, left, bottom, right = box
    is_object = objects_of(video)
    if is_object[ids_in(ids[top:bottom, left:right])].any():
        return True
    present = ids_in(ids)
    for object in np.flatnonzero(is_object[:len(video.segments) + 1]).tolist():
        mask = np.isin(ids, [id for id in present if object in video.overlaps.get(id, (id,))])
        rows = np.flatnonzero(mask.any(axis=1))
        columns = np.flatnonzero(mask.any(axis=0))
        if len(rows) and rows[0] < bottom and rows[-1] >= top and columns[0] < right and columns[-1] >= left:
            return True
    return False
