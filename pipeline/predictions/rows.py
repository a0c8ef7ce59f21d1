"""The results of a video as rows, one a track: what a handed-over model answers and what a table of tracks holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from model.contracts import SemanticVideo, VideoResults
from model.labels import VOID, ClassTable
from pipeline.predictions.video_to_write import VideoToWrite, mask_as_text


def track_rows(results: VideoResults, classes: ClassTable, *, times: Sequence[float] | None = None
               ) -> Iterator[dict[str, Any]]:
    """One row a track of every result that was made.

    times: T seconds. Columns: `video`; `result`: panoptic (things and stuff, whose masks together are the map), tracks
    (which may overlap) or semantic (a row for each class); `track`: the panoptic id, or the position in the result;
    `class`, `category_id` (of the data set), `is_thing`; `score`, 0 to 1; `masks`: T COCO run lengths, None where it is
    not seen; `frames`: T names; `times`. Raises BadInput for maps that do not fit their segments.
    """
    video = VideoToWrite(results=results, folder=Path(), classes=classes, times=times)
    shared = {"frames": list(video.first_result.frame_names), "times": None if times is None else list(times)}

    def row(result: str, track: int, class_index: int, score: float, masks: list[Any]) -> dict[str, Any]:
        info = classes.classes[class_index]
        return {"video": video.first_result.video_id, "result": result, "track": track, "class": info.name,
                "category_id": info.dataset_id, "is_thing": info.is_thing, "score": score, "masks": masks, **shared}

    if results.panoptic is not None:
        for panoptic, segment in sorted(results.panoptic.segments.items()):
            yield row("panoptic", panoptic, segment.class_index, segment.score,
                      [frame.get(panoptic) for frame in video.run_lengths])
    for index, track in enumerate(results.tracks.tracks if results.tracks is not None else ()):
        yield row("tracks", index, track.class_index, track.score, list(map(mask_as_text, track.masks)))
    if results.semantic is not None:
        for index, masks in _class_masks(results.semantic).items():
            yield row("semantic", index, index, 1.0, masks)


def _class_masks(video: SemanticVideo) -> Mapping[int, list[dict[str, Any] | None]]:
    """Class -> T run lengths, of every class that has a pixel."""
    masks: dict[int, list[dict[str, Any] | None]] = {}
    for frame, labels in enumerate(video.frames):
        columns = np.asfortranarray(labels)     # run lengths go down columns
        for index in set(np.unique(labels).tolist()) - {VOID}:
            mask = coco.encode((columns == index).view(np.uint8))
            masks.setdefault(index, [None] * len(video.frame_names))[frame] = mask_as_text(mask)
    return dict(sorted(masks.items()))
