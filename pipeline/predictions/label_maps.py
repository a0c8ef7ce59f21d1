"""Results as the label maps of VSPW and KITTI-STEP, in the coding of the data sets' own annotations.

    <folder>/<video>/<frame>.png, or the tar of a video in an object store (`maps.write_maps`)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from model.contracts import PanopticVideo, SemanticVideo
from model.labels import VOID, ClassTable
from pipeline.datasets.id_maps import ids_in
from pipeline.errors import BadInput
from pipeline.predictions.maps import write_maps
from pipeline.visualise.palette import paint

VSPW_LAST = 252             # larger values are void in some releases
STEP_VOID = (255, 0, 0)     # red is the class, 255 none; green and blue are the instance
STEP_INSTANCES = 1 << 16


def write_semantic_maps(video: SemanticVideo, folder: Path, *, classes: ClassTable) -> Path:
    """VSPW: one channel; 0 is void, other values are the data set's number of the class plus one.

    Returns the folder, or the tar, of the video. Raises BadInput for a map with a class outside the table, ValueError
    for a table that does not fit into the coding.
    """
    values = np.array([info.dataset_id + 1 for info in classes.classes] + [0])     # the last is for void, which is -1
    if values.max() > VSPW_LAST or values[:-1].min() < 1:
        raise ValueError(f"class table {classes.name!r} has the numbers {values[:-1].min() - 1} to {values.max() - 1}; "
                         f"a VSPW map holds 0 to {VSPW_LAST - 1}")
    values = values.astype(np.uint8)

    def encode(ids: np.ndarray) -> np.ndarray:
        if ids.min() < VOID or ids.max() >= len(classes):
            raise BadInput("unknown-category", f"a map holds the classes {ids.min()} to {ids.max()}, the table has 0 "
                           f"to {len(classes) - 1}.", video=video.video_id, cure="Void is -1.")
        return values[ids]

    return _write(video, folder, encode)


def write_step_maps(video: PanopticVideo, folder: Path, *, classes: ClassTable) -> Path:
    """KITTI-STEP: red is the data set's number of the class, 256 green + blue the instance (0 for stuff).

    Returns the folder, or the tar, of the video. Raises BadInput for an id that is not listed or does not fit into the
    coding.
    """
    colors = {}
    for panoptic, segment in video.segments.items():
        category = classes.classes[segment.class_index].dataset_id
        if not (0 <= category < STEP_VOID[0] and 0 <= segment.track < STEP_INSTANCES):
            raise BadInput("bad-id", f"class {category}, track {segment.track} do not fit into one byte and two.",
                           video=video.video_id, cure="Classes are 0 to 254, tracks 0 to 65535.")
        colors[panoptic] = (category, segment.track >> 8, segment.track & 255)

    def encode(ids: np.ndarray) -> np.ndarray:
        if unlisted := [i for i in ids_in(ids) if i != VOID and i not in colors]:
            raise BadInput("unlisted-id", f"a map holds the ids {unlisted[:5]}, which its segments do not list.",
                           video=video.video_id, cure="List every id of the maps; void is -1.")
        image = paint(ids, colors)
        image[ids == VOID] = STEP_VOID
        return image

    return _write(video, folder, encode)


def _write(video: PanopticVideo | SemanticVideo, folder: Path, encode: Callable[[np.ndarray], np.ndarray]) -> Path:
    frames = zip(video.frame_names, video.frames, strict=True)
    return write_maps(folder, video.video_id, ((name, encode(ids)) for name, ids in frames))
