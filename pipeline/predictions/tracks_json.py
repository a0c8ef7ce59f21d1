"""The format `youtube_vis`: tracks by the name of their video, and the zip that an evaluation server takes.

    tracks.json    [{video_id, category_id, category_name, score, segmentations, bboxes, areas, frame_names, times,
                   id_in_maps}] with the names of the videos as ids
    results.zip    the same with the data set's own numbers as ids; only where tracks were made and the json of the
                   data set is at hand

segmentations, bboxes (x, y, width, height) and areas have one entry per frame, null where the object is not seen.
times are seconds, null where they are not known. id_in_maps is the object's id in the maps of `vipseg`, null for
tracks, which may overlap and so have no maps. The tracks of a panoptic video are its things, where no tracks were made.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools import mask as coco

from model.contracts import Track, Tracks
from model.labels import ClassTable
from pipeline.files import atomic_write, canonical_json
from pipeline.predictions.all_videos import AllVideos
from pipeline.predictions.server_results import write_results
from pipeline.predictions.video_to_write import VideoToWrite, id_in_maps, mask_as_text

TRACKS = "tracks.json"
ZIP = "results.zip"

log = logging.getLogger(__name__)


def write_tracks(video: VideoToWrite) -> dict[str, Any]:
    """The rows of tracks.json for one video, and the size of its masks where they are of tracks.

    Raises BadInput as `VideoToWrite.run_lengths` does.
    """
    tracks = video.results.tracks
    if tracks is None:
        return {"tracks": _rows_of_segments(video), "size": None}
    rows = [_row(video, track.class_index, track.score, list(map(mask_as_text, track.masks)))
            for track in tracks.tracks]
    return {"tracks": rows, "size": tracks.size}


def join_tracks(videos: AllVideos) -> str:
    """Join the rows of all videos into tracks.json; returns its name."""
    rows = [row for part in videos.parts.values() for row in part["tracks"]]
    atomic_write(videos.folder / TRACKS, canonical_json(rows))
    return TRACKS


def submit_tracks(videos: AllVideos) -> None:
    """Write results.zip where tracks were made of every video that the evaluation server lists.

    Raises BadInput for tracks that the server would refuse.
    """
    if all(part["size"] is None for part in videos.parts.values()):
        return
    try:
        listed = videos.listed()
    except FileNotFoundError as error:
        log.warning("no %s for an evaluation server: %s", ZIP, error)
        return
    if listed is None:
        return
    missing = [name for name in listed if videos.parts.get(name, {}).get("size") is None]
    if len(missing) == len(listed):
        log.warning("no %s for an evaluation server: none of its %d videos has tracks", ZIP, len(listed))
        return
    if missing:
        log.warning("%s lists %d of its %d videos without tracks, since they were not predicted; the first is %r", ZIP,
                    len(missing), len(listed), missing[0])
    empty = {name: Tracks(video_id=name, frame_names=listed[name].frame_names, size=listed[name].size, tracks=())
             for name in missing}
    tracks = (empty.get(name) or tracks_of(name, videos.parts[name], videos.classes) for name in listed)
    write_results(videos.folder / ZIP, tracks, videos=listed, classes=videos.classes)


def tracks_of(video_id: str, part: Mapping[str, Any], classes: ClassTable) -> Tracks:
    """The tracks that `write_tracks` was given, read back from the json of their video."""
    tracks = (Track(class_index=classes.index_of[row["category_id"]], score=row["score"],
                    masks=tuple(mask and {**mask, "counts": mask["counts"].encode()} for mask in row["segmentations"]))
              for row in part["tracks"])
    return Tracks(video_id=video_id, frame_names=tuple(part["frames"]), size=tuple(part["size"]), tracks=tuple(tracks))


def _rows_of_segments(video: VideoToWrite) -> list[dict[str, Any]]:
    """The things of a panoptic video as tracks, in order of their ids; its stuff too under `stuff_tracks`."""
    panoptic = video.results.panoptic
    chosen = [i for i in sorted(panoptic.segments)
              if video.stuff_tracks or video.classes.classes[panoptic.segments[i].class_index].is_thing]
    return [_row(video, panoptic.segments[i].class_index, panoptic.segments[i].score,
                 [masks.get(i) for masks in video.run_lengths], id_in_maps=id_in_maps(video.colors[i])) for i in chosen]


def _row(video: VideoToWrite, class_index: int, score: float, masks: Sequence[dict | None], *,
         id_in_maps: int | None = None) -> dict[str, Any]:
    result = video.first_result
    info = video.classes.classes[class_index]
    return {"video_id": result.video_id, "category_id": info.dataset_id, "category_name": info.name, "score": score,
            "segmentations": masks, "areas": [mask and int(coco.area(mask)) for mask in masks],
            "bboxes": [mask and [int(value) for value in coco.toBbox(mask)] for mask in masks],
            "frame_names": list(result.frame_names), "times": None if video.times is None else list(video.times),
            "id_in_maps": id_in_maps}
