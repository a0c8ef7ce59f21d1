"""Write predictions in the layout of `pipeline.predictions`: a worker per video, then `finish` joins the parts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_lengths

from model.contracts import PanopticVideo, Track, Tracks, VideoResults, VideoSegment
from model.labels import VOID, ClassTable, panoptic_id
from pipeline.datasets.id_maps import ids_in
from pipeline.errors import BadInput
from pipeline.files import atomic_write, canonical_json, digest, sha256_of
from pipeline.images import encode_png
from pipeline.predictions.label_maps import write_semantic_maps
from pipeline.predictions.reading import (
    MANIFEST,
    MAPS,
    PANOPTIC,
    PARTS,
    SCHEMA,
    SEMANTIC,
    TRACKS,
    read_prediction_manifest,
    refuse_other_source,
)
from pipeline.predictions.youtube_vis import mask_as_text
from pipeline.visualise.palette import paint, unique_colors


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
            refuse_other_source(read_prediction_manifest(self.folder)["made_by"], self.made_by, self.folder)

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
            rows = [self._row(video.video_id, track.class_index, track.score, list(map(mask_as_text, track.masks)))
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
        frames = []
        tracks = {i: [None] * len(video.frame_names) for i in video.segments if self._has_track(video, i)}
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


def _run_lengths(ids: np.ndarray) -> dict[int, dict[str, Any]]:
    """Panoptic id -> COCO run lengths of every segment of a frame."""
    columns = np.asfortranarray(ids)     # run lengths go down columns
    masks = {i: run_lengths.encode((columns == i).view(np.uint8)) for i in ids_in(ids) if i != VOID}
    return {i: mask_as_text(mask) for i, mask in masks.items()}


def _unlisted(video: str, frame: str, ids: Sequence[int]) -> BadInput:
    return BadInput("unlisted-id", f"frame {frame!r} holds the ids {list(ids)[:5]}, which the segments do not list.",
                    video=video, cure="List every id of the maps; void is -1.")
