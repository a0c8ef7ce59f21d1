"""The results of one video on their way to disk, with what several formats need of them computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from model.contracts import PanopticVideo, SemanticVideo, Tracks, VideoResults
from model.labels import VOID, ClassTable
from pipeline.datasets.id_maps import ids_in
from pipeline.errors import BadInput
from pipeline.visualise.palette import Color, unique_colors


@dataclass(frozen=True, kw_only=True)
class VideoToWrite:
    """What a format is given to write one video."""

    results: VideoResults
    folder: Path                  # of the predictions of all videos
    classes: ClassTable
    stuff_tracks: bool = False    # whether stuff segments of a panoptic video are tracks too
    times: Sequence[float] | None = None    # T seconds of the frames, where they are known

    @property
    def first_result(self) -> PanopticVideo | Tracks | SemanticVideo:
        """Any result of the video, for its id and the names of its frames, which all results share."""
        return self.results.panoptic or self.results.tracks or self.results.semantic

    @cached_property
    def run_lengths(self) -> list[dict[int, dict[str, Any]]]:
        """T of panoptic id -> COCO run lengths as text, of every segment that has pixels in the frame.

        Raises BadInput for an id that is not listed, or is listed without a pixel in any frame.
        """
        video = self.results.panoptic
        frames = []
        for name, ids in zip(video.frame_names, video.frames, strict=True):
            frames.append(_run_lengths(ids))
            if unlisted := sorted(frames[-1].keys() - video.segments.keys()):
                raise BadInput("unlisted-id", f"frame {name!r} holds the ids {unlisted[:5]}, which the segments do not "
                               "list.", video=video.video_id, cure="List every id of the maps; void is -1.")
        # Reading gives back only segments with pixels, and the official tools refuse the others.
        if empty := sorted(video.segments.keys() - {panoptic for frame in frames for panoptic in frame}):
            raise BadInput("empty-segment", f"the ids {empty[:5]} are listed, but have no pixel in any frame.",
                           video=video.video_id, cure="List only segments that own pixels.")
        return frames


    @cached_property
    def colors(self) -> dict[int, Color]:
        """Panoptic id -> the colour that is its id in the maps of `vipseg`."""
        return unique_colors(self.results.panoptic.segments, self.classes)


def id_in_maps(color: Color) -> int:
    """The number that a colour stands for in the maps of `vipseg`."""
    red, green, blue = color
    return red + 256 * green + 65536 * blue


def mask_as_text(mask: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """COCO run lengths as JSON holds them, with the counts as text; None stays None."""
    if mask is None:
        return None
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def _run_lengths(ids: np.ndarray) -> dict[int, dict[str, Any]]:
    columns = np.asfortranarray(ids)     # run lengths go down columns
    masks = {i: coco.encode((columns == i).view(np.uint8)) for i in ids_in(ids) if i != VOID}
    return {i: mask_as_text(mask) for i, mask in masks.items()}
