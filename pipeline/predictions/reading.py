"""Predictions on disk, in layouts that the official tools of VIPSeg, YouTube-VIS, VSPW and KITTI-STEP read.

    videos/<video>.json                 the video's share of the joined files; its presence means the video is finished
    pan_pred/<video>/<frame>.png        `vipseg`: maps of ids
    pred.json                           `vipseg`: what the ids of all maps are
    tracks.json, results.zip            `youtube_vis`: tracks by video name, and for the evaluation server
    semantic/<video>/<frame>.png        `vspw`: maps of classes
    panoptic_maps/<video>/<frame>.png   `kitti_step`: maps of classes and instances
    predictions.json                    what made the predictions, and the class table; the last of the joined files

`formats.FORMATS` is the table of the formats, and `writer.PredictionWriter` writes them, in parallel. Panoptic videos
are read back from the format `vipseg`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.contracts import PanopticVideo, VideoSegment
from model.labels import DIVISOR, VOID, ClassTable, panoptic_id
from pipeline.datasets.folders import load_json
from pipeline.datasets.id_maps import read_label
from pipeline.errors import BadInput
from pipeline.file_names import name_for
from pipeline.foreign_files import inside, own_json
from pipeline.images import ids_from_rgb
from pipeline.predictions.vipseg import MAPS, PANOPTIC

SCHEMA = 1
PARTS = "videos"
MANIFEST = "predictions.json"
PREDICT_AGAIN = "Delete it and predict again; the results of finished videos are kept."


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions(Mapping[str, PanopticVideo]):
    """Panoptic videos on disk, by video id; maps are read when they are iterated. Also reads ground truth in this form.

    annotations: path of a json with VIPSeg's `annotations`; maps: folder of its <video>/<frame>.png.
    """

    annotations: Path
    maps: Path
    classes: ClassTable
    made_by: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, video_id: str) -> PanopticVideo:
        """Raises KeyError for another video, BadInput for entries that contradict each other."""
        entry = next((e for e in load_json(self.annotations)["annotations"] if e["video_id"] == video_id), None)
        if entry is None:
            raise KeyError(video_id)
        return panoptic_video(entry, self.maps, self.classes)

    def __iter__(self) -> Iterator[str]:
        return iter(entry["video_id"] for entry in load_json(self.annotations)["annotations"])

    def __len__(self) -> int:
        return len(load_json(self.annotations)["annotations"])


def read_predictions(folder: Path, *, expected: Mapping[str, Any] | None = None) -> Predictions:
    """Finished predictions of this project. expected: fields of `made_by` that must be equal.

    Raises FileNotFoundError where they are not finished, ValueError naming every field that differs, or where the
    format `vipseg` was not among those written.
    """
    folder = Path(folder)
    manifest = read_prediction_manifest(folder)
    refuse_other_source(manifest["made_by"], expected or {}, folder)
    if PANOPTIC not in manifest["sha256"]:
        raise ValueError(f"the predictions in {folder} were not written in the format 'vipseg', which is the one that "
                         "is read back. Predict again with 'vipseg' among the formats, or with none chosen")
    return Predictions(annotations=folder / PANOPTIC, maps=folder / MAPS, made_by=manifest["made_by"],
                       classes=ClassTable.from_json(manifest["classes"]))


def refuse_other_source(made_by: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError naming every expected field in which predictions differ."""
    wrong = [f"{key}: they have {made_by.get(key)!r}, expected {value!r}" for key, value in sorted(expected.items())
             if made_by.get(key) != value]
    if wrong:
        raise ValueError(f"the predictions in {folder} were made by something else: {'; '.join(wrong)}. "
                         "Give another folder (--set predict.output=FOLDER), or delete this one to predict again.")


def panoptic_video(entry: Mapping[str, Any], maps: Path, classes: ClassTable) -> PanopticVideo:
    """One video of a json in VIPSeg's form. Ids without a `track_id` are numbered within their class, ascending.

    The segments keep the order in which the json lists them, because the official STQ depends on it. Raises BadInput
    for an unknown category, an id whose category, crowd flag or score changes, and a class with too many ids; the
    `frames` raise BadInput when a map and its list disagree.
    """
    video = entry["video_id"]
    infos = {}
    for frame in entry["annotations"]:
        for info in frame["segments_info"]:
            fixed = (info["category_id"], info.get("track_id"), info.get("iscrowd", 0), info.get("score", 1.0))
            if infos.setdefault(info["id"], fixed) != fixed or info["category_id"] not in classes.index_of:
                raise BadInput("inconsistent-id", f"id {info['id']} of {frame['file_name']!r} has the category "
                               f"{info['category_id']}, which the class table lacks or other frames contradict.",
                               video=video, cure="An id keeps its category, crowd flag and score through the video.")
    panoptic = {}
    segments = {}
    used = Counter()     # class -> ids numbered so far
    for file_id, (category, track, crowd, score) in sorted(infos.items()):
        index = classes.index_of[category]
        if track is None:
            first = int(classes.is_thing[index])     # things are numbered from 1, stuff from 0
            track = first + used[index]
            used[index] += 1
        panoptic[file_id] = panoptic_id(index, track)
        segments[panoptic[file_id]] = VideoSegment(class_index=index, track=track, score=score, is_crowd=bool(crowd))
        if track >= DIVISOR:
            raise BadInput("bad-id", f"class {classes.classes[index].name!r} has {track} tracks or more.", video=video,
                           cure=f"A video holds up to {DIVISOR - 1} tracks of a class.")
    listed = {panoptic[file_id]: segments[panoptic[file_id]] for file_id in infos}
    return PanopticVideo(video_id=video, segments=listed, frames=_Maps(entry, Path(maps) / name_for(video), panoptic),
                         frame_names=tuple(Path(frame["file_name"]).stem for frame in entry["annotations"]))


class _Maps:
    """Frames of a video, decoded when they are asked for; can be iterated again."""

    def __init__(self, entry: Mapping[str, Any], folder: Path, panoptic: Mapping[int, int]) -> None:
        self.entry = entry
        self.folder = folder
        self.file_ids = np.array([0, *panoptic], np.int32)                          # ascending
        self.panoptic = np.array([VOID, *panoptic.values()], np.int32)

    def __len__(self) -> int:
        return len(self.entry["annotations"])

    def __iter__(self) -> Iterator[np.ndarray]:
        """T maps, H W int32 of panoptic ids. Raises BadInput "unlisted-id" or "empty-segment" naming the file."""
        for frame in self.entry["annotations"]:
            file = self._file(frame["file_name"])
            rgb = read_label(file, video=self.entry["video_id"], indexed=False)
            if rgb.ndim != 3:
                raise BadInput("corrupt-label", "the map has one channel, not red, green and blue.",
                               video=self.entry["video_id"], file=file, cure="Write ids as R + 256 G + 65536 B.")
            yield self._translate(ids_from_rgb(rgb), {info["id"] for info in frame["segments_info"]}, file)

    def _file(self, name: str) -> Path:
        """The map of a frame. Raises BadInput "outside" for a name, or a link, that leads out of the folder of maps."""
        try:
            return inside(self.folder / name, self.folder.parent)
        except BadInput as error:
            raise BadInput(error.reason, error.what, video=self.entry["video_id"], file=error.file or self.folder,
                           cure=error.cure) from None

    def _translate(self, ids: np.ndarray, listed: set[int], file: Path) -> np.ndarray:
        flat = ids.ravel()
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])    # of runs of equal ids
        values = flat[starts]
        if wrong := set(np.unique(values).tolist()) - {0} ^ listed:
            reason = "unlisted-id" if wrong - listed else "empty-segment"
            raise BadInput(reason, f"map and list disagree about the ids {sorted(wrong)[:5]}.", file=file,
                           video=self.entry["video_id"], cure="List exactly the ids that own pixels of the frame.")
        translated = self.panoptic[np.searchsorted(self.file_ids, values)]
        return np.repeat(translated, np.diff(starts, append=flat.size)).reshape(ids.shape)


def read_prediction_manifest(folder: Path) -> dict[str, Any]:
    """The content of predictions.json. Raises FileNotFoundError without one, ValueError for another schema."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no finished predictions in {folder} ({MANIFEST} is missing); run jobs.evaluate or "
                                "jobs.predict again")
    manifest = own_json(path, needs={"made_by": dict, "classes": dict, "sha256": dict}, cure=PREDICT_AGAIN)
    if manifest.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {manifest.get('schema')}, this version reads {SCHEMA}; predict again")
    return manifest
