"""The error that a fault in data becomes: that of one frame, which then has no label, or that of the whole video."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import BadInput
from pipeline.records import VideoRecord
from pipeline.shards.encode import EncodedVideo


def error_of(read: Callable[[], VideoRecord | EncodedVideo]) -> BadInput:
    """The first fault of a frame of the video, or what `read` raises. Raises StopIteration where all is well."""
    try:
        video = read()
    except BadInput as error:
        return error
    return next(iter(video.faults.values()))
