"""The table of output formats. A new one is a row here, its name in `FormatName`, and the functions that write it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.predictions.all_videos import AllVideos
from pipeline.predictions.label_maps import write_semantic_maps, write_step_maps
from pipeline.predictions.tracks_json import join_tracks, submit_tracks, write_tracks
from pipeline.predictions.video_to_write import VideoToWrite
from pipeline.predictions.vipseg import join_vipseg, write_vipseg

FormatName = Literal["vipseg", "youtube_vis", "vspw", "kitti_step"]

SEMANTIC = "semantic"
STEP = "panoptic_maps"      # as in the data set


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How results are written in one format."""

    reads: tuple[str, ...]                                  # fields of VideoResults, of which one is enough
    write: Callable[[VideoToWrite], Mapping[str, Any]]      # writes the files of a video; returns its share of the json
    nothing: Mapping[str, Any] = field(default_factory=dict)     # that share, of a video that is not written so
    join: Callable[[AllVideos], str] | None = None          # writes one file about all videos; returns its name
    submit: Callable[[AllVideos], None] | None = None       # writes what an evaluation server takes, after the manifest
    default: bool = True                                    # whether it is written when no format is chosen


def write_vspw(video: VideoToWrite) -> Mapping[str, Any]:
    """semantic/<video>/<frame>.png: the data set's number of the class plus one, void 0."""
    write_semantic_maps(video.results.semantic, video.folder / SEMANTIC, classes=video.classes)
    return {}


def write_kitti_step(video: VideoToWrite) -> Mapping[str, Any]:
    """panoptic_maps/<video>/<frame>.png: R is the class, 255 void, and 256 G + B the instance."""
    write_step_maps(video.results.panoptic, video.folder / STEP, classes=video.classes)
    return {}


FORMATS: dict[FormatName, Format] = {
    "vipseg": Format(reads=("panoptic",), write=write_vipseg, join=join_vipseg, nothing={"panoptic": None}),
    "youtube_vis": Format(reads=("tracks", "panoptic"), write=write_tracks, join=join_tracks, submit=submit_tracks,
                          nothing={"tracks": [], "size": None}),
    "vspw": Format(reads=("semantic",), write=write_vspw),
    "kitti_step": Format(reads=("panoptic",), write=write_kitti_step, default=False),
}


def default_formats(results: Collection[str]) -> tuple[FormatName, ...]:
    """What is written of these results (fields of VideoResults) when no format is chosen."""
    return tuple(name for name, row in FORMATS.items() if row.default and set(row.reads) & set(results))


def refuse_unfit_formats(formats: Sequence[FormatName], results: Collection[str], *, setting: str = "formats") -> None:
    """Raise ValueError naming a format that does not exist, or one whose results are not made.

    setting: what the user sets the formats with.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"{setting}={list(formats)}: there is no format {name!r}; choose from "
                             f"{', '.join(FORMATS)}")
        reads = FORMATS[name].reads
        if not set(reads) & set(results):
            fitting = [other for other, row in FORMATS.items() if set(row.reads) & set(results)]
            raise ValueError(f"{setting}={list(formats)}: the format {name!r} is written from {' or '.join(reads)}, "
                             f"and the results are {', '.join(results)}. Choose from {', '.join(fitting)}, or let the "
                             f"results include {' or '.join(reads)}")
