"""What an export is given: the tracks of one finished video, read back from a folder of predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.contracts import VideoResults
from model.labels import ClassTable
from pipeline.errors import BadInput
from pipeline.predictions import earlier_videos, kept_results, kept_times, read_prediction_manifest, track_rows


@dataclass(frozen=True, kw_only=True)
class TrackedVideo:
    """The results of one video as rows."""

    video: str
    path: str                       # that was predicted; "" where it is not known
    frames: tuple[str, ...]         # T names
    size: tuple[int, int]           # height, width, pixels
    classes: ClassTable
    rows: tuple[dict[str, Any], ...]        # of `track_rows`, of every result that was made

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The rows of one result, the panoptic one if there is one: for files in which an object stands once."""
        return [row for row in self.rows if row["result"] == self.rows[0]["result"]]


def in_its_box(mask: np.ndarray) -> tuple[int, int, np.ndarray]:
    """The left and top edge of the box of a mask, and what is inside the box. mask: H W uint8, not empty."""
    rows = np.flatnonzero(mask.any(1))
    columns = np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def tracked_videos(folder: Path) -> Iterator[TrackedVideo]:
    """Yield every video of a folder of predictions that has a track.

    Raises FileNotFoundError where they are not finished, and BadInput where a file is damaged.
    """
    classes = ClassTable.from_json(read_prediction_manifest(folder)["classes"])
    for video, path in earlier_videos(folder).items():
        results = kept_results(folder, video, classes)
        if results == VideoResults():
            raise ValueError(f"{folder} holds no results of {video!r} that can be read back; predict again with vipseg "
                             "or youtube_vis among predict.formats, or with none chosen")
        rows = tuple(track_rows(results, classes, times=kept_times(folder, video)))
        sizes = {tuple(mask["size"]) for row in rows for mask in row["masks"] if mask is not None}
        if len(sizes) > 1:
            raise BadInput("frame-size", f"its masks have the sizes {sorted(sizes)}.", video=video, file=folder,
                           cure="Delete the folder and predict again.")
        if sizes:
            yield TrackedVideo(video=video, path=path, frames=tuple(rows[0]["frames"]), size=sizes.pop(),
                               classes=classes, rows=rows)
