"""Finished predictions in the files of other tools. A new one is a file here and a row in `EXPORTS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from pipeline.exports.coco_video import write_coco_video
from pipeline.exports.cvat_video import write_cvat_videos
from pipeline.exports.fiftyone_labels import write_fiftyone_labels
from pipeline.exports.rerun_recording import write_rerun_recordings
from pipeline.exports.track_table import write_track_table
from pipeline.exports.tracked_video import TrackedVideo, tracked_videos

__all__ = ["EXPORTS", "ExportName", "TrackedVideo", "tracked_videos"]

ExportName = Literal["coco_video", "cvat", "fiftyone", "parquet", "rerun"]

# Each is given the videos and a folder, and returns the files that it wrote.
EXPORTS: dict[ExportName, Callable[[Iterable[TrackedVideo], Path], list[Path]]] = {
    "coco_video": write_coco_video,
    "cvat": write_cvat_videos,
    "fiftyone": write_fiftyone_labels,
    "parquet": write_track_table,
    "rerun": write_rerun_recordings,
}
