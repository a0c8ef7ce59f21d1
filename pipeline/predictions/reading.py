"""Predictions on disk, in layouts that the official tools of VIPSeg, YouTube-VIS, VSPW and KITTI-STEP read.

    videos/<video>.json                 the video's share of the joined files; its presence means the video is finished
    pan_pred/<video>/<frame>.png        `vipseg`: maps of ids
    pred.json                           `vipseg`: what the ids of all maps are
    tracks.json, results.zip            `youtube_vis`: tracks by video name, and for the evaluation server
    semantic/<video>/<frame>.png        `vspw`: maps of classes
    panoptic_maps/<video>/<frame>.png   `kitti_step`: maps of classes and instances
    predictions.json                    what made the predictions, and the class table; the last of the joined files

In an object store, the maps of a video are one tar, such as pan_pred/<video>.tar.

`formats.FORMATS` is the table of the formats, and `writer.PredictionWriter` writes them, in parallel. Panoptic videos
are read back from the format `vipseg`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.contracts import PanopticVideo, VideoSegment
from model.labels import DIVISOR, VOID, ClassTable, panoptic_id
from pipeline.datasets.folders import load_json
from pipeline.datasets.id_maps import read_label
from pipeline.datasets.json_entries import Entry, is_finite, shown
from pipeline.digests import known_sha256
from pipeline.errors import BadInput
from pipeline.file_names import composed, frame_name, name_for, on_disk
from pipeline.foreign_files import inside, own_json, whole_json
from pipeline.images import ids_from_rgb
from pipeline.predictions.maps import maps_to_read
from pipeline.predictions.vipseg import MAPS, PANOPTIC

log = logging.getLogger(__name__)

SCHEMA = 1
PARTS = "videos"
MANIFEST = "predictions.json"
LARGEST_ID = 2**24 - 1      # of a colour
CORRECT = "Correct the program that wrote it, and write it again."
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
    parts: Path | None = None       # files of single videos, with which the entries are compared

    def __getitem__(self, video_id: str) -> PanopticVideo:
        """Raises KeyError for another video, BadInput for one that is listed twice or whose entry is wrong."""
        entries = [entry.of_video(video_id) for entry in self._entries()[0].get(composed(video_id), [])]
        if not entries:
            raise KeyError(video_id)
        if len(entries) > 1:
            raise entries[0].bad(f"the video is listed {len(entries)} times.", "duplicate-video")
        video = panoptic_video(entries[0], self.maps, self.classes)
        if self.parts is None:
            return video
        return replace(video, frames=_AsWritten(video.frames, entries[0], self.parts / f"{name_for(video_id)}.json"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries()[0])

    def __len__(self) -> int:
        return len(self._entries()[0])

    @property
    def strays(self) -> Sequence[BadInput]:
        """The errors of entries that name no video."""
        return self._entries()[1]

    @property
    def has_entries(self) -> bool:
        """Whether an entry names a video."""
        return len(self) > 0

    def _entries(self) -> tuple[dict[str, list[Entry]], list[BadInput]]:
        """Video -> its entries, and `strays`. Raises BadInput for a file that has no list of entries."""
        content = Entry(load_json(self.annotations), "its content", file=self.annotations, cure=CORRECT)
        videos: dict[str, list[Entry]] = {}
        strays = []
        for position, values in enumerate(content.list("annotations")):
            try:
                entry = content.part(values, f"annotations[{position}]")
                video_id = entry.text("video_id")
                videos.setdefault(video_id, []).append(entry.of_video(video_id))
            except BadInput as error:
                strays.append(error)
        return videos, strays


def read_predictions(folder: Path, *, expected: Mapping[str, Any] | None = None, compare: bool = False) -> Predictions:
    """Finished predictions of this project. expected: fields of `made_by` that must be equal.

    compare: also compare pred.json with its sha256. Where they differ, the entry of each video is compared with the
    file that the video was written to, so that only the videos that differ are lost.
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
                       classes=ClassTable.from_json(manifest["classes"]),
                       parts=None if not compare or _is_as_written(folder, manifest) else folder / PARTS)


def _is_as_written(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether pred.json has the sha256 of the manifest; the log names one that has another."""
    expected = str(manifest["sha256"][PANOPTIC])
    if (actual := known_sha256(folder / PANOPTIC)) == expected:
        return True
    log.warning("%s has sha256 %s..., but %s lists %s...: it was damaged, changed or exchanged. Only the videos whose "
                "entries are those in %s/ are read. %s", folder / PANOPTIC, actual[:12], MANIFEST, expected[:12], PARTS,
                f"If it was predicted here, delete {MANIFEST} and run the same verb again.")
    return False


def refuse_other_source(made_by: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError naming every expected field in which predictions differ."""
    wrong = [f"{key}: they have {made_by.get(key)!r}, expected {value!r}" for key, value in sorted(expected.items())
             if made_by.get(key) != value]
    if wrong:
        raise ValueError(f"the predictions of {folder / MANIFEST} were made by something else: {'; '.join(wrong)}. "
                         "Give another folder (--set predict.output=FOLDER), or delete this one to predict again.")


def panoptic_video(entry: Entry, maps: Path, classes: ClassTable) -> PanopticVideo:
    """One video of a json in VIPSeg's form. Ids without a `track_id` are numbered within their class, ascending.

    The segments keep the order in which the json lists them, because the official STQ depends on it. Raises BadInput
    for fields of other types, an unknown category, an id whose category, track, crowd flag or score changes, two ids of
    one track, and a class with too many ids; the `frames` raise BadInput when a map and its list disagree.
    """
    frames = [_Frame.from_entry(frame) for frame in entry.entries("annotations", "frame")]
    infos = _listed_infos(frames, entry, classes)
    panoptic = {}
    segments = {}
    used = Counter()     # class -> ids numbered so far
    for file_id, info in sorted(infos.items()):
        index = classes.index_of[info.category]
        track = info.track
        if track is None:
            first = int(classes.is_thing[index])     # things are numbered from 1, stuff from 0
            track = first + used[index]
            used[index] += 1
        if track >= DIVISOR:
            raise entry.bad(f"class {classes.classes[index].name!r} has {track} tracks or more; a video holds up to "
                            f"{DIVISOR - 1} of a class.", "bad-id")
        panoptic[file_id] = panoptic_id(index, track)
        if panoptic[file_id] in segments:
            raise entry.bad(f"two ids, one of them {file_id}, are track {track} of class "
                            f"{classes.classes[index].name!r}.", "bad-id")
        segments[panoptic[file_id]] = VideoSegment(class_index=index, track=track, score=info.score,
                                                   is_crowd=info.is_crowd)
    listed = {panoptic[file_id]: segments[panoptic[file_id]] for file_id in infos}
    maps_of_video = _Maps(entry.video, frames, on_disk(Path(maps) / name_for(entry.video)), panoptic)
    return PanopticVideo(video_id=entry.video, segments=listed, frames=maps_of_video,
                         frame_names=tuple(frame_name(Path(frame.file).stem) for frame in frames))


@dataclass(frozen=True, slots=True)
class _Info:
    """What a json says about an id, in every frame the same."""

    category: int
    track: int | None
    is_crowd: bool
    score: float


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame of a json: the name of its map, and what it says about the ids in it."""

    file: str
    infos: Mapping[int, _Info]

    @classmethod
    def from_entry(cls, entry: Entry) -> _Frame:
        """Raises BadInput for fields of other types."""
        infos = {}
        for listed in entry.entries("segments_info", "segment"):
            id = listed.whole("id", least=1)
            score = listed.values.get("score", 1.0)
            if id > LARGEST_ID or not is_finite(score):
                raise listed.bad(f"{listed.name} has the score {shown(score)}; ids go up to {LARGEST_ID}, and scores "
                                 "are finite numbers.", "bad-id" if id > LARGEST_ID else "bad-score")
            infos[id] = _Info(listed.whole("category_id"), is_crowd=listed.flag("iscrowd"), score=score, track=None
                              if listed.values.get("track_id") is None else listed.whole("track_id", least=0))
        return cls(entry.text("file_name"), infos)


def _listed_infos(frames: Sequence[_Frame], entry: Entry, classes: ClassTable) -> dict[int, _Info]:
    """Id -> what all frames say about it, in the order of listing."""
    infos: dict[int, _Info] = {}
    for frame in frames:
        for id, info in frame.infos.items():
            if infos.setdefault(id, info) != info or info.category not in classes.index_of:
                raise entry.bad(f"id {id} of {frame.file!r} has the category {info.category}, which the class table "
                                "lacks or other frames contradict; an id keeps its category, track, crowd flag and "
                                "score through the video.", "inconsistent-id")
    return infos


class _Maps:
    """Frames of a video, decoded when they are asked for; can be iterated again."""

    def __init__(self, video_id: str, frames: Sequence[_Frame], folder: Path, panoptic: Mapping[int, int]) -> None:
        self.video_id = video_id
        self.listed = frames
        self.folder = folder
        self.file_ids = np.array([0, *panoptic], np.int32)                          # ascending
        self.panoptic = np.array([VOID, *panoptic.values()], np.int32)

    def __len__(self) -> int:
        return len(self.listed)

    def __iter__(self) -> Iterator[np.ndarray]:
        """T maps, H W int32 of panoptic ids. Raises BadInput "unlisted-id" or "empty-segment" naming the file."""
        with maps_to_read(self.folder) as folder:
            for frame in self.listed:
                file = self._file(folder, frame.file)
                yield self._translate(ids_from_rgb(self._colors(file)), set(frame.infos), file)

    def _colors(self, file: Path) -> np.ndarray:
        rgb = read_label(file, video=self.video_id, indexed=False)
        if rgb.ndim != 3 or rgb.dtype != np.uint8:
            raise BadInput("corrupt-label", f"the map has {8 * rgb.itemsize} bits in "
                           f"{'one channel' if rgb.ndim != 3 else 'each colour'}, not red, green and blue of 8.",
                           video=self.video_id, file=file, cure="Write ids as R + 256 G + 65536 B.")
        return rgb

    def _file(self, folder: Path, name: str) -> Path:
        """The map of a frame. Raises BadInput "outside" for a name, or a link, that leads out of the folder of maps."""
        try:
            return inside(on_disk(folder / name), folder.parent)
        except BadInput as error:
            raise BadInput(error.reason, error.what, video=self.video_id, file=error.file or folder,
                           cure=error.cure) from None

    def _translate(self, ids: np.ndarray, listed: set[int], file: Path) -> np.ndarray:
        flat = ids.ravel()
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])    # of runs of equal ids
        values = flat[starts]
        if wrong := set(np.unique(values).tolist()) - {0} ^ listed:
            reason = "unlisted-id" if wrong - listed else "empty-segment"
            raise BadInput(reason, f"map and list disagree about the ids {sorted(wrong)[:5]}.", file=file,
                           video=self.video_id, cure="List exactly the ids that own pixels of the frame.")
        translated = self.panoptic[np.searchsorted(self.file_ids, values)]
        return np.repeat(translated, np.diff(starts, append=flat.size)).reshape(ids.shape)


@dataclass(frozen=True)
class _AsWritten:
    """Frames whose entry is compared with the file of its video, where there is one, after the last of them."""

    frames: _Maps
    entry: Entry
    part: Path

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Raises BadInput "other-prediction" where the two differ; more exact errors of the frames come first."""
        yield from self.frames
        written = whole_json(self.part)
        if written is not None and written.get("panoptic") != self.entry.values:
            raise BadInput("other-prediction", f"its entry is not the one in {self.part}.", video=self.entry.video,
                           file=self.entry.file, cure="Predict this video again, or copy the folder again.")


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
