"""The results of one video, read back from the folder that `PredictionWriter` wrote them to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.contracts import PanopticVideo, SemanticVideo, VideoResults
from model.labels import VOID, ClassTable
from pipeline.datasets.id_maps import read_label
from pipeline.datasets.json_entries import Entry
from pipeline.file_names import name_for
from pipeline.foreign_files import own_json
from pipeline.predictions.formats import SEMANTIC
from pipeline.predictions.maps import has_maps, maps_to_read
from pipeline.predictions.reading import CORRECT, PARTS, PREDICT_AGAIN, panoptic_video
from pipeline.predictions.tracks_json import tracks_of
from pipeline.predictions.vipseg import MAPS


def kept_results(folder: Path, video_id: str, classes: ClassTable) -> VideoResults:
    """What the formats `vipseg`, `youtube_vis` and `vspw` keep of a video; None for results that they were not given.

    Maps are read when they are iterated. Raises FileNotFoundError for a video that was not written, and BadInput where
    the files are damaged.
    """
    path = folder / PARTS / f"{name_for(video_id)}.json"
    part = own_json(path, cure=PREDICT_AGAIN, needs={"frames": list})
    panoptic: PanopticVideo | None = None
    if part.get("panoptic"):
        entry = Entry(part["panoptic"], "panoptic", file=path, cure=CORRECT).of_video(video_id)
        panoptic = panoptic_video(entry, folder / MAPS, classes)
    semantic: SemanticVideo | None = None
    maps = folder / SEMANTIC / name_for(video_id)
    if has_maps(maps):
        names = tuple(part["frames"])
        frames = _ClassMaps(video_id, names, maps, classes)
        semantic = SemanticVideo(video_id=video_id, frame_names=names, frames=frames)
    return VideoResults(panoptic=panoptic, semantic=semantic,
                        tracks=tracks_of(video_id, part, classes) if part.get("size") else None)


def kept_times(folder: Path, video_id: str) -> Sequence[float] | None:
    """T seconds of the frames of a video, which its tracks keep; None where they are not known."""
    part = own_json(folder / PARTS / f"{name_for(video_id)}.json", cure=PREDICT_AGAIN)
    return next((row["times"] for row in part.get("tracks") or () if row.get("times")), None)


@dataclass(frozen=True, slots=True)
class _ClassMaps:
    """The maps of the format `vspw` as classes, decoded when asked for; can be iterated again."""

    video_id: str
    frame_names: Sequence[str]
    folder: Path
    classes: ClassTable

    def __iter__(self) -> Iterator[np.ndarray]:
        table = np.full(256, VOID, np.int32)
        table[[info.dataset_id + 1 for info in self.classes.classes]] = np.arange(len(self.classes))
        with maps_to_read(self.folder) as folder:
            for name in self.frame_names:
                path = folder / f"{name_for(name, video=self.video_id)}.png"
                yield table[read_label(path, video=self.video_id, indexed=True)]
