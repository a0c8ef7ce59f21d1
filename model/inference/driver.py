"""From the clips of one video to its results. Knows no file, no recipe and no segmenter.

    clips -> check -> every result maker -> results by name

A *result maker* sees the clips of a video one after the other and gives its results at the end. Each way to make a
result is one of them:

    near_online.NearOnline        one decision per query for the whole video, from the clips' own masks
    offline.Offline               the same, from the classes and masks of a cross-clip head over all clips
    in_parts.InParts              the same for one part of the video after the other, whose tracks are then linked
    linked.LinkedPanoptic         every clip is merged by itself, then its segments are linked
    tube_panoptic.TubePanoptic    every clip is painted by itself, then its segments are tracked (Tube-Link)
    postprocess.semantic          every clip is labelled by itself

`alignment.Aligned` reorders the queries of each clip before the makers that need query n to be one object. `clips` are
pairs (prediction of one clip, b = 1; how many of its frames are real). The last clip of a video is filled up by
repeating its last frame; makers cut the repeats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from model.contracts import ClipPrediction

Clips = Iterable[tuple[ClipPrediction, int]]


class ResultMaker(Protocol):
    """Makes results of one video: `add` every clip in time, then `finish`."""

    def add(self, clip: ClipPrediction, frames: int, /) -> None:
        """clip: b = 1; frames: how many of its frames are not repeats of the last one."""

    def finish(self) -> dict[str, Any]:
        """The results by name, of the frames added since the last `finish`. Objects keep their identities."""


@torch.no_grad()
def make_results(clips: Clips, makers: Sequence[ResultMaker], *, num_classes: int) -> dict[str, Any]:
    """Show every clip once to every maker; returns all results by name.

    Called again with the clips that follow and the same makers, it gives the results of those clips alone. Raises
    ValueError without any clip, and for a clip that is not finite or has other classes.
    """
    start = 0
    for clip, frames in clips:
        check_clip(clip, frames, num_classes=num_classes, start=start)
        start += frames
        for maker in makers:
            maker.add(clip, frames)
    if not start:
        raise ValueError("the video has no clips, so there is nothing to segment")
    return {name: result for maker in makers for name, result in maker.finish().items()}


def check_clip(clip: ClipPrediction, frames: int, *, num_classes: int, start: int) -> None:
    """Raise ValueError unless this is a finite clip of one video, with these classes and `frames` real frames.

    start: how many frames of the video came before, for the message.
    """
    videos, _, length = clip.mask_logits.shape[:3]
    where = f"the clip after frame {start}"
    if videos != 1 or not 1 <= frames <= length:
        raise ValueError(f"{where} holds {videos} videos and {length} frames, {frames} of them real, so it cannot be "
                         "part of one video; give one video at a time and at least one real frame per clip")
    if clip.class_logits.shape[-1] != num_classes + 1:
        raise ValueError(f"{where} has class logits {tuple(clip.class_logits.shape)}, which do not fit {num_classes} "
                         "classes (plus one for no object); is this the right class table?")
    for name in ("class_logits", "mask_logits", "queries", "mask_embeddings"):
        if not _is_finite(getattr(clip, name)):
            raise ValueError(f"the {name} of {where} hold NaN or infinity; the segmenter diverged or its checkpoint "
                             "does not fit")


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite; NaN and infinities show in the smallest or the largest value."""
    return tensor.numel() == 0 or all(bool(extreme.isfinite()) for extreme in tensor.aminmax())
