"""The format `vipseg`: one RGB map of ids per frame, and the json that lists what every id is.

    pan_pred/<video>/<frame>.png   id = R + 256 G + 65536 B, void black; one id per segment for the whole video
    pred.json                      {annotations: [{video_id, annotations: [{file_name, segments_info}]}]}

segments_info holds the official id, category_id, iscrowd, bbox and area, and also the track_id and the score, so that
reading gives back what was written.
"""

from __future__ import annotations

from typing import Any

from pycocotools import mask as coco

from model.contracts import VideoSegment
from model.labels import ClassTable, panoptic_id
from pipeline.file_names import name_for
from pipeline.files import atomic_write, canonical_json
from pipeline.predictions.all_videos import AllVideos
from pipeline.predictions.maps import write_maps
from pipeline.predictions.video_to_write import VideoToWrite, id_in_maps
from pipeline.visualise.palette import paint

MAPS = "pan_pred"
PANOPTIC = "pred.json"


def write_vipseg(video: VideoToWrite) -> dict[str, Any]:
    """Write the maps; returns the video's entry of pred.json. Raises BadInput as `VideoToWrite.run_lengths` does."""
    panoptic = video.results.panoptic
    segments = panoptic.segments
    if wrong := [i for i, s in segments.items() if i != panoptic_id(s.class_index, s.track)]:
        raise ValueError(f"panoptic ids {wrong} of {panoptic.video_id} do not code the classes and tracks of their "
                         "segments; make them by model.labels.panoptic_id")
    colors = video.colors
    run_lengths = video.run_lengths     # refuses wrong ids before anything is written
    write_maps(video.folder / MAPS, panoptic.video_id,
               ((name, paint(ids, colors)) for name, ids in zip(panoptic.frame_names, panoptic.frames, strict=True)))
    frames = []
    for name, masks in zip(panoptic.frame_names, run_lengths, strict=True):
        infos = [_segment_info(segments[i], colors[i], mask, video.classes) for i, mask in masks.items()]
        frames.append({"file_name": f"{name_for(name, video=panoptic.video_id)}.png", "segments_info": infos})
    return {"panoptic": {"video_id": panoptic.video_id, "annotations": frames}}


def join_vipseg(videos: AllVideos) -> str:
    """Join the entries of all videos into pred.json; returns its name."""
    entries = [part["panoptic"] for part in videos.parts.values() if part["panoptic"]]
    atomic_write(videos.folder / PANOPTIC, canonical_json({"annotations": entries}))
    return PANOPTIC


def _segment_info(segment: VideoSegment, color: tuple[int, int, int], mask: dict[str, Any],
                  classes: ClassTable) -> dict[str, Any]:
    return {"id": id_in_maps(color), "iscrowd": int(segment.is_crowd), "track_id": segment.track,
            "category_id": classes.classes[segment.class_index].dataset_id, "score": segment.score,
            "area": int(coco.area(mask)), "bbox": [int(value) for value in coco.toBbox(mask)]}
