"""Predictions on disk, in the layouts the official VIPSeg, YouTube-VIS and VSPW tools read.

    pan_pred/<video>/<frame>.png   id = R + 256 G + 65536 B, void black; one id per segment for the whole video
    semantic/<video>/<frame>.png   the data set's id of the class + 1, void 0
    videos/<video>.json            the same video's part of both json files; its presence means the video is finished
    pred.json                      {annotations: [{video_id, annotations: [{file_name, segments_info}]}]}, VIPSeg
    tracks.json                    [{video_id, category_id, score, segmentations}], YouTube-VIS results by video name:
                                   the tracks, or where none were made the things of panoptic videos
    predictions.json               what made them, and the class table; written last

`pipeline.predictions.writer` writes them, in parallel. segments_info carries, beside the official id, category_id,
iscrowd, bbox and area, the track_id and score that make reading give back what was written.
"""

from __future__ import annotations

import json
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
from pipeline.images import ids_from_rgb

SCHEMA = 1
MAPS = "pan_pred"
SEMANTIC = "semantic"
PARTS = "videos"
PANOPTIC = "pred.json"
TRACKS = "tracks.json"
MANIFEST = "predictions.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions(Mapping[str, PanopticVideo]):
    """Panoptic videos on disk, by video id; maps are read when looked at. Also reads ground truth in this form.

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

    Raises FileNotFoundError where they are not finished, ValueError naming every field that differs.
    """
    folder = Path(folder)
    manifest = read_prediction_manifest(folder)
    refuse_other_source(manifest["made_by"], expected or {}, folder)
    return Predictions(annotations=folder / PANOPTIC, maps=folder / MAPS, made_by=manifest["made_by"],
                       classes=ClassTable.from_json(manifest["classes"]))


def refuse_other_source(found: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError naming every expected field in which predictions differ."""
    wrong = [f"{key}: they have {found.get(key)!r}, expected {value!r}" for key, value in sorted(expected.items())
             if found.get(key) != value]
    if wrong:
        raise ValueError(f"the predictions in {folder} were made by something else: {'; '.join(wrong)}. "
                         "Give another folder, or delete this one to predict again.")


def panoptic_video(entry: Mapping[str, Any], maps: Path, classes: ClassTable) -> PanopticVideo:
    """One video of a json in VIPSeg's form. Ids without `track_id` are numbered inside their class, ascending.

    Its segments are in the order of listing, which the official STQ depends on. Raises BadInput for an unknown
    category, an id that changes what it is, and a class with too many ids; its `frames` raise BadInput when a map and
    its list disagree.
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
    used = {}
    for number, (category, track, crowd, score) in sorted(infos.items()):
        index = classes.index_of[category]
        if track is None:
            track = used[index] = used.get(index, -1 + bool(classes.is_thing[index])) + 1
        panoptic[number] = panoptic_id(index, track)
        segments[panoptic[number]] = VideoSegment(class_index=index, track=track, score=score, is_crowd=bool(crowd))
        if track >= DIVISOR:
            raise BadInput("bad-id", f"class {classes.classes[index].name!r} has {track} tracks or more.", video=video,
                           cure=f"A video holds up to {DIVISOR - 1} tracks of a class.")
    listed = {panoptic[number]: segments[panoptic[number]] for number in infos}
    return PanopticVideo(video_id=video, segments=listed, frames=_Maps(entry, Path(maps) / video, panoptic),
                         frame_names=tuple(Path(frame["file_name"]).stem for frame in entry["annotations"]))


class _Maps:
    """Frames of a video, decoded as they are asked for; can be iterated again."""

    def __init__(self, entry: Mapping[str, Any], folder: Path, panoptic: Mapping[int, int]) -> None:
        self.entry = entry
        self.folder = folder
        self.numbers = np.array([0, *panoptic], np.int32)                          # ids in the file, ascending
        self.panoptic = np.array([VOID, *panoptic.values()], np.int32)

    def __len__(self) -> int:
        return len(self.entry["annotations"])

    def __iter__(self) -> Iterator[np.ndarray]:
        """T maps, H W int32 of panoptic ids. Raises BadInput "unlisted-id" or "empty-segment" naming the file."""
        for frame in self.entry["annotations"]:
            file = self.folder / frame["file_name"]
            rgb = read_label(file, video=self.entry["video_id"], indexed=False)
            if rgb.ndim != 3:
                raise BadInput("corrupt-label", "the map has one channel, not red, green and blue.",
                               video=self.entry["video_id"], file=file, cure="Write ids as R + 256 G + 65536 B.")
            yield self._translate(ids_from_rgb(rgb), {info["id"] for info in frame["segments_info"]}, file)

    def _translate(self, ids: np.ndarray, listed: set[int], file: Path) -> np.ndarray:
        flat = ids.ravel()
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])    # of runs of one id
        values = flat[starts]
        if wrong := set(np.unique(values).tolist()) - {0} ^ listed:
            reason = "unlisted-id" if wrong - listed else "empty-segment"
            raise BadInput(reason, f"map and list disagree about the ids {sorted(wrong)[:5]}.", file=file,
                           video=self.entry["video_id"], cure="List exactly the ids that own pixels of the frame.")
        translated = self.panoptic[np.searchsorted(self.numbers, values)]
        return np.repeat(translated, np.diff(starts, append=flat.size)).reshape(ids.shape)


def read_prediction_manifest(folder: Path) -> dict[str, Any]:
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no finished predictions in {folder} ({MANIFEST} is missing); run the verb that makes "
                                "them again: it does only what is missing")
    manifest = json.loads(path.read_text())
    if manifest.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {manifest.get('schema')}, this version reads {SCHEMA}; predict again")
    return manifest
