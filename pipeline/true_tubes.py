"""The true tubes of the clips of a stored video, as a segmenter sees them."""

from __future__ import annotations

from model.contracts import ClipTargets
from model.labels import ClassTable
from pipeline.clips import VideoClip
from pipeline.shards import StoredVideo
from pipeline.training_input import at_stride_4, clip_tubes


def true_tubes(clip: VideoClip, *, video: StoredVideo, classes: ClassTable) -> ClipTargets:
    """The targets of a clip of `video` at stride 4; track ids are unique in the video.

    Raises ValueError if the video has no labels.
    """
    return clip_tubes(at_stride_4(clip.ids), video.segments, classes, overlaps=video.overlaps).targets()
