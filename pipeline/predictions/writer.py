"""Write predictions in the chosen formats: a worker writes each video, then `finish` joins the parts of all videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from model.contracts import Tracks, VideoResults
from model.labels import ClassTable
from pipeline.file_names import name_for
from pipeline.files import atomic_write, canonical_json, digest, remove_file, sha256_of
from pipeline.foreign_files import own_json, whole_json
from pipeline.predictions.all_videos import AllVideos
from pipeline.predictions.formats import FORMATS, FormatName, default_formats, refuse_unfit_formats
from pipeline.predictions.reading import (
    MANIFEST,
    PARTS,
    PREDICT_AGAIN,
    SCHEMA,
    read_prediction_manifest,
    refuse_other_source,
)
from pipeline.predictions.server_results import ListedVideo
from pipeline.predictions.tracks_json import tracks_of
from pipeline.predictions.video_to_write import VideoToWrite
from pipeline.seals import sealed


@dataclass(frozen=True, kw_only=True)
class PredictionWriter:
    """Writes the predictions of one run. It holds plain values, so it may travel to any number of workers.

    made_by: what decides the predictions (recipe, config digest, checkpoint, shards, code version); plain values.
    formats: names in `FORMATS`; empty: the default formats of the results that it is given.
    """

    folder: Path
    classes: ClassTable
    made_by: Mapping[str, Any]
    formats: tuple[FormatName, ...] = ()
    stuff_tracks: bool = False    # also give stuff segments a track in tracks.json

    def __post_init__(self) -> None:
        """Raises ValueError where the folder holds predictions made by something else."""
        if (Path(self.folder) / MANIFEST).is_file():
            refuse_other_source(read_prediction_manifest(self.folder)["made_by"], self.made_by, self.folder)

    def is_finished(self, video_id: str) -> bool:
        """Whether a run with the same `made_by` and formats has written the video."""
        part = self._part(video_id)
        written = whole_json(part)      # one that was cut off is predicted again
        return written is not None and written.get("made_by") == self._source()

    def refuse_unlike(self, videos: Iterable[str]) -> None:
        """Raise ValueError where one of these videos of the folder was written by other settings than these."""
        videos = list(videos)
        if unlike := [name for name in videos if not self.is_finished(name)]:
            raise ValueError(f"{self.folder} holds {len(videos)} other videos, of which {len(unlike)} were predicted "
                             f"with other settings or formats, first {unlike[0]!r} ({self._part(unlike[0])}). Use the "
                             "same settings to add to them, give another folder (--set predict.output=FOLDER), or "
                             "delete this one")

    def write(self, results: VideoResults, *, path: str = "", times: Sequence[float] | None = None) -> Path:
        """Write the results of one video, holding one frame at a time; returns the path of its json.

        path: of the video, for the record. times: T seconds of its frames, where they are known. The video is complete
        or, after an error, not finished. Raises BadInput naming video and frame for results that do not fit a format,
        and ValueError for a format that reads none of the results.
        """
        names = [field.name for field in fields(results) if getattr(results, field.name) is not None]
        refuse_unfit_formats(self.formats, names)
        formats = self.formats or default_formats(names)
        video = VideoToWrite(results=results, folder=Path(self.folder), classes=self.classes,
                             stuff_tracks=self.stuff_tracks, times=times)
        file = self._part(video.first_result.video_id)
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_file(file)
        part = {"made_by": self._source(), "frames": list(video.first_result.frame_names), "path": path}
        for name, row in FORMATS.items():
            part |= row.write(video) if name in formats else row.nothing
        atomic_write(file, canonical_json(sealed(part)))
        return file

    def finish(self, videos: Iterable[str] | None = None, *,
               listed: Callable[[], Mapping[str, ListedVideo] | None] = lambda: None) -> Path:
        """Join the parts of all videos, or of exactly `videos`, as the formats do; returns predictions.json.

        listed: see `AllVideos`; with it, tracks also become the zip for an evaluation server. Raises ValueError when a
        video is missing or was made by something else.
        """
        folder = Path(self.folder)
        names = sorted(path.stem for path in (folder / PARTS).glob("*.json")) if videos is None else sorted(videos)
        missing = [name for name in names if not self.is_finished(name)]
        if missing or not names:
            raise ValueError(f"{folder}: {len(missing)} of {len(names)} videos are not predicted by this run, first "
                             f"{missing[:3]}; predict them again with these settings")
        parts = {name: own_json(self._part(name), cure=PREDICT_AGAIN) for name in names}
        joined = AllVideos(folder=folder, classes=self.classes, parts=parts, listed=listed)
        formats = [FORMATS[name] for name in self.formats or FORMATS]
        files = [row.join(joined) for row in formats if row.join is not None]
        atomic_write(folder / MANIFEST, canonical_json(sealed({
            "schema": SCHEMA, "made_by": dict(self.made_by), "classes": self.classes.to_json(), "videos": len(names),
            "frames": sum(len(part["frames"]) for part in parts.values()),
            "sha256": {name: sha256_of(folder / name) for name in files}})))
        for row in formats:
            if row.submit is not None:
                row.submit(joined)
        return folder / MANIFEST

    def tracks(self, video_id: str) -> Tracks:
        """The tracks of a video that `write` was given. Raises ValueError where it was given none."""
        part = own_json(self._part(video_id), cure=PREDICT_AGAIN)
        if part["size"] is None:
            raise ValueError(f"{self._part(video_id)} holds no tracks; predict with tracks among the results")
        return tracks_of(video_id, part, self.classes)

    def _source(self) -> str:
        """Digest of what decides the part of a video."""
        return digest({**self.made_by, "formats": list(self.formats)} if self.formats else self.made_by)

    def _part(self, video_id: str) -> Path:
        return Path(self.folder) / PARTS / f"{name_for(video_id)}.json"


def earlier_videos(folder: Path) -> dict[str, str]:
    """The videos that a folder of predictions holds already: name -> path that was predicted, "" where unknown."""
    return {file.stem: (whole_json(file) or {}).get("path", "")
            for file in sorted((Path(folder) / PARTS).glob("*.json"))}
