"""Predictions on disk, in the layouts the official VIPSeg, YouTube-VIS and VSPW tools read.

    pan_pred/<video>/<frame>.png   id = R + 256 G + 65536 B, void black; one id per segment for the whole video
    semantic/<video>/<frame>.png   class + 1, void 0
    videos/<video>.json            the same video's part of both json files; its presence means the video is finished
    pred.json                      {annotations: [{video_id, annotations: [{file_name, segments_info}]}]}, VIPSeg
    tracks.json                    [{video_id, category_id, score, segmentations}], YouTube-VIS results by video name:
                                   the tracks, or where none were made the things of panoptic videos
    predictions.json               what made them, and the class table; written last

Videos are written in parallel, one worker each; `finish` joins the parts. segments_info carries, beside the official
id, category_id, iscrowd, bbox and area, the track_id and score that make reading give back what was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from model.contracts import PanopticVideo, Track, Tracks, VideoResults, VideoSegment
from model.labels import DIVISOR, VOID, ClassTable, panoptic_id
from pipeline.datasets.folders import load_json
from pipeline.datasets.id_maps import ids_in, read_label
from pipeline.errors import BadInput
from pipeline.files import atomic_write, canonical_json, digest, sha256_of
from pipeline.images import encode_png, ids_from_rgb
from pipeline.result_maps import write_semantic_maps
from pipeline.visualise.palette import paint, unique_colors

SCHEMA = 1
MAPS, SEMANTIC, PARTS = "pan_pred", "semantic", "videos"
PANOPTIC, TRACKS, MANIFEST = "pred.json", "tracks.json", "predictions.json"


@dataclass(frozen=True, kw_only=True)
class PredictionWriter:
    """Writes predictions of one run, frame by frame. Plain values inside: it may travel to any number of workers.

    made_by: what decides the predictions (recipe, config digest, checkpoint, shards, code version); plain values.
    """

    folder: Path
    classes: ClassTable
    made_by: Mapping[str, Any]
    stuff_tracks: bool = False    # also give stuff segments a track in tracks.json

    def __post_init__(self) -> None:
        """Raises ValueError where the folder holds predictions made by something else."""
        if (Path(self.folder) / MANIFEST).is_file():
            refuse_other_source(_manifest(self.folder)["made_by"], self.made_by, self.folder)

    def is_finished(self, video_id: str) -> bool:
        """Whether this run has written the video before."""
        part = self._part(video_id)
        return part.is_file() and json.loads(part.read_text())["made_by"] == digest(self.made_by)

    def write(self, results: VideoResults) -> Path:
        """Write what was made of one video, holding one frame at a time; returns its json.

        Complete or, after an error, not finished. Raises BadInput for an id that is not listed, or listed without a
        pixel anywhere, naming video and frame.
        """
        video = results.panoptic or results.tracks or results.semantic
        part = self._part(video.video_id)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        entry, rows = self._write_panoptic(results.panoptic) if results.panoptic else (None, [])
        if results.tracks:
            rows = [self._row(video.video_id, track.class_index, track.score, [_as_text(mask) for mask in track.masks])
                    for track in results.tracks.tracks]
        if results.semantic:
            write_semantic_maps(results.semantic, Path(self.folder) / SEMANTIC, classes=self.classes)
        atomic_write(part, canonical_json({
            "made_by": digest(self.made_by), "tracks": rows, "panoptic": entry, "frames": list(video.frame_names),
            "size": results.tracks.size if results.tracks else None}))
        return part

    def _write_panoptic(self, video: PanopticVideo) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The maps; returns the entry for VIPSeg's json, and the rows of the tracks."""
        maps = Path(self.folder) / MAPS / video.video_id
        maps.mkdir(parents=True, exist_ok=True)
        assert all(i == panoptic_id(s.class_index, s.track) for i, s in video.segments.items()), video.segments
        colors = unique_colors(video.segments, self.classes)
        frames, tracks = [], {i: [None] * len(video.frame_names) for i in video.segments if self._has_track(video, i)}
        for index, (name, ids) in enumerate(zip(video.frame_names, video.frames, strict=True)):
            masks = _run_lengths(ids)
            if unlisted := sorted(masks.keys() - video.segments.keys()):
                raise _unlisted(video.video_id, name, unlisted)
            atomic_write(maps / f"{name}.png", encode_png(paint(ids, colors)))
            frames.append({"file_name": f"{name}.png",
                           "segments_info": [self._info(video.segments[i], colors[i], masks[i]) for i in masks]})
            for i in masks.keys() & tracks.keys():
                tracks[i][index] = masks[i]
        self._refuse_empty(video, frames)
        rows = [self._row(video.video_id, video.segments[i].class_index, video.segments[i].score, tracks[i])
                for i in sorted(tracks)]
        return {"video_id": video.video_id, "annotations": frames}, rows

    def finish(self, videos: Iterable[str] | None = None) -> Path:
        """Join the parts of all videos, or of exactly `videos`, into pred.json and tracks.json; predictions.json last.

        Raises ValueError when a video is missing or was made by something else.
        """
        folder = Path(self.folder)
        names = sorted(path.stem for path in (folder / PARTS).glob("*.json")) if videos is None else sorted(videos)
        missing = [name for name in names if not self.is_finished(name)]
        if missing or not names:
            raise ValueError(f"{folder}: {len(missing)} of {len(names)} videos are not predicted by this run, first "
                             f"{missing[:3]}; run the verb again: it does only what is missing")
        parts = [json.loads(self._part(name).read_text()) for name in names]
        panoptic = [part["panoptic"] for part in parts if part["panoptic"]]
        atomic_write(folder / PANOPTIC, canonical_json({"annotations": panoptic}))
        atomic_write(folder / TRACKS, canonical_json([track for part in parts for track in part["tracks"]]))
        atomic_write(folder / MANIFEST, canonical_json({
            "schema": SCHEMA, "made_by": dict(self.made_by), "classes": self.classes.to_json(), "videos": len(names),
            "frames": sum(len(part["frames"]) for part in parts),
            "sha256": {name: sha256_of(folder / name) for name in (PANOPTIC, TRACKS)}}))
        return folder / MANIFEST

    def _part(self, video_id: str) -> Path:
        if not re.fullmatch(r"[^/\0]+", video_id) or video_id in (".", ".."):
            raise ValueError(f"video id {video_id!r} cannot name a folder; rename the video")
        return Path(self.folder) / PARTS / f"{video_id}.json"

    def _has_track(self, video: PanopticVideo, panoptic: int) -> bool:
        return self.stuff_tracks or self.classes.classes[video.segments[panoptic].class_index].is_thing

    def _info(self, segment: VideoSegment, color: tuple[int, int, int], mask: dict) -> dict[str, Any]:
        red, green, blue = color
        return {"id": red + 256 * green + 65536 * blue, "iscrowd": int(segment.is_crowd), "track_id": segment.track,
                "category_id": self.classes.classes[segment.class_index].dataset_id, "score": segment.score,
                "area": int(run_lengths.area(mask)), "bbox": [int(value) for value in run_lengths.toBbox(mask)]}

    def _row(self, video: str, class_index: int, score: float, masks: Sequence[dict | None]) -> dict[str, Any]:
        return {"video_id": video, "score": score, "segmentations": masks,
                "category_id": self.classes.classes[class_index].dataset_id}

    def tracks(self, video_id: str) -> Tracks:
        """The tracks of a video that `write` was given. Raises ValueError where it was given none."""
        part = json.loads(self._part(video_id).read_text())
        if part["size"] is None:
            raise ValueError(f"{self._part(video_id)} holds no tracks; predict with tracks among the results")
        tracks = (Track(class_index=self.classes.index_of[row["category_id"]], score=row["score"],
                        masks=tuple(mask and {**mask, "counts": mask["counts"].encode()}
                                    for mask in row["segmentations"])) for row in part["tracks"])
        return Tracks(video_id=video_id, frame_names=tuple(part["frames"]), size=tuple(part["size"]),
                      tracks=tuple(tracks))

    def _refuse_empty(self, video: PanopticVideo, frames: Sequence[dict]) -> None:
        """Reading gives back only what has pixels, and the official tools refuse the rest."""
        seen = {(info["category_id"], info["track_id"]) for frame in frames for info in frame["segments_info"]}
        empty = [i for i, s in sorted(video.segments.items())
                 if (self.classes.classes[s.class_index].dataset_id, s.track) not in seen]
        if empty:
            raise BadInput("empty-segment", f"the ids {empty[:5]} are listed, but have no pixel in any frame.",
                           video=video.video_id, cure="List only segments that own pixels.")


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
    folder, manifest = Path(folder), _manifest(folder)
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
    video, infos = entry["video_id"], {}
    for frame in entry["annotations"]:
        for info in frame["segments_info"]:
            fixed = (info["category_id"], info.get("track_id"), info.get("iscrowd", 0), info.get("score", 1.0))
            if infos.setdefault(info["id"], fixed) != fixed or info["category_id"] not in classes.index_of:
                raise BadInput("inconsistent-id", f"id {info['id']} of {frame['file_name']!r} has the category "
                               f"{info['category_id']}, which the class table lacks or other frames contradict.",
                               video=video, cure="An id keeps its category, crowd flag and score through the video.")
    panoptic, segments, used = {}, {}, {}
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
        self.entry, self.folder = entry, folder
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


def _run_lengths(ids: np.ndarray) -> dict[int, dict[str, Any]]:
    """Panoptic id -> COCO run lengths of every segment of a frame."""
    columns = np.asfortranarray(ids)     # run lengths go down columns
    masks = {i: run_lengths.encode((columns == i).view(np.uint8)) for i in ids_in(ids) if i != VOID}
    return {i: _as_text(mask) for i, mask in masks.items()}


def _as_text(mask: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return mask and {"size": list(mask["size"]), "counts": mask["counts"].decode("ascii")}


def _manifest(folder: Path) -> dict[str, Any]:
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no finished predictions in {folder} ({MANIFEST} is missing); run the verb that makes "
                                "them again: it does only what is missing")
    manifest = json.loads(path.read_text())
    if manifest.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {manifest.get('schema')}, this version reads {SCHEMA}; predict again")
    return manifest


def _unlisted(video: str, frame: str, ids: Sequence[int]) -> BadInput:
    return BadInput("unlisted-id", f"frame {frame!r} holds the ids {list(ids)[:5]}, which the segments do not list.",
                    video=video, cure="List every id of the maps; void is -1.")
