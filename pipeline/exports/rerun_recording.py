"""A recording for each video that the viewer of Rerun opens: `rerun rerun/<video>.rrd`. It needs `rerun-sdk`.

    rerun/<video>.rrd       an image of track numbers on the timeline of frames, with a name and a number for each track
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from pipeline.exports.tracked_video import TrackedVideo
from pipeline.file_names import name_for

FOLDER = "rerun"


def write_rerun_recordings(videos: Iterable[TrackedVideo], folder: Path) -> list[Path]:
    """Write a recording for each video. Raises ValueError where `rerun-sdk` is not installed."""
    try:
        import rerun
    except ImportError:
        raise ValueError("the export rerun needs the package rerun-sdk, which is not installed: "
                         "pip install 'maxtron-on-ray[view]'") from None
    files = []
    for video in videos:
        files.append(folder / FOLDER / f"{name_for(video.video)}.rrd")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        names = [(number, f"{row['class']} {number}") for number, row in enumerate(video.objects, 1)]
        with rerun.RecordingStream("maxtron-on-ray", recording_id=video.video) as recording:
            recording.save(files[-1])
            recording.log("video", rerun.AnnotationContext(names), static=True)
            for frame in range(len(video.frames)):
                recording.set_time("frame", sequence=frame)
                recording.log("video/tracks", rerun.SegmentationImage(numbers(video, frame)))
    return files


def numbers(video: TrackedVideo, frame: int) -> np.ndarray:
    """H W uint16: the position of the track among the objects, from 1 on, 0 without one. Of tracks that overlap, the
    first covers the others."""
    picture = np.zeros(video.size, np.uint16)
    for number, row in reversed(list(enumerate(video.objects, 1))):
        mask = row["masks"][frame]
        if mask is not None:
            picture[coco.decode(mask).astype(bool)] = number
    return picture
