"""Frames whose label cannot be read, which stay in their video without one, and frames whose picture is missing or
cannot be read, which are left out. The fault is kept by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from pipeline.errors import BadInput
from pipeline.records import VideoRecord

UNREADABLE = "frames without a label, since it cannot be read"
LEFT_OUT = "frames left out, since their picture is missing, unreadable or badly named"


def without_faulty_labels(video: VideoRecord, faults: Mapping[str, BadInput]) -> VideoRecord:
    """The same video without labels in the frames of `faults`, and without the objects that only these show.

    What is in such a frame is not known: without the object, it would count as background. Faults of frames that the
    video lacks are counted as frames left out. Raises the first fault where every labelled frame has one, since the
    whole video, or the list of classes, is then suspect.
    """
    if not faults:
        return video
    frames = tuple(replace(frame, label=None, segment_ids=(), masks=None) if frame.name in faults else frame
                   for frame in video.frames)
    if all(frame.label is None and frame.masks is None for frame in frames):
        raise next(iter(faults.values()))
    shown = {id for frame in frames for id in frame.segment_ids}
    remarks = Counter(video.remarks)
    left_out = faults.keys() - {frame.name for frame in frames}
    remarks[LEFT_OUT] += len(left_out)
    remarks[UNREADABLE] += len(faults) - len(left_out)
    if lost := sum(segment.id not in shown for segment in video.segments):
        remarks["objects that only such frames show"] += lost
    return replace(video, frames=frames, remarks=+remarks, faults={**video.faults, **faults},
                   segments=tuple(segment for segment in video.segments if segment.id in shown))
