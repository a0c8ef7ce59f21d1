"""Labels that FiftyOne loads beside the videos that were predicted.

    fiftyone/manifest.json          the path of each video, and its labels
    fiftyone/labels/<video>.json    the objects of every frame: class, track, score, box and mask

    fiftyone.Dataset.from_dir(FOLDER, dataset_type=fiftyone.types.FiftyOneVideoLabelsDataset)
"""

from __future__ import annotations

import io
import json
import zlib
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipeline.exports.tracked_video import TrackedVideo, in_its_box
from pipeline.file_names import name_for
from pipeline.files import atomic_write

FOLDER = "fiftyone"


def write_fiftyone_labels(videos: Iterable[TrackedVideo], folder: Path) -> list[Path]:
    """Write the labels of each video, and the manifest last. FiftyOne plays a video only if it was predicted from a
    file."""
    files = []
    index = []
    for video in videos:
        name = f"labels/{name_for(video.video)}.json"
        files.append(folder / FOLDER / name)
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        atomic_write(files[-1], json.dumps({"frames": {
            str(frame + 1): {"frame_number": frame + 1, "objects": {"objects": _objects(video, frame)}}
            for frame in range(len(video.frames))}}).encode())
        index.append({"data": str(Path(video.path or video.video).absolute()), "labels": name})
    manifest = folder / FOLDER / "manifest.json"
    content = {"type": "eta.core.datasets.labeled_datasets.LabeledVideoDataset", "index": index}
    atomic_write(manifest, json.dumps(content, indent=1).encode())
    return [*files, manifest]


def _objects(video: TrackedVideo, frame: int) -> list[dict[str, Any]]:
    """What is seen in a frame. Boxes are fractions of the picture."""
    height, width = video.size
    objects = []
    for number, row in enumerate(video.objects, 1):
        mask = row["masks"][frame]
        if mask is None or not coco.area(mask):
            continue
        left, top, inside = in_its_box(coco.decode(mask))
        right, bottom = left + inside.shape[1], top + inside.shape[0]
        objects.append({
            "label": row["class"], "index": number, "confidence": row["score"],
            "mask": _serialised(inside.astype(bool)),
            "bounding_box": {"top_left": {"x": left / width, "y": top / height},
                             "bottom_right": {"x": right / width, "y": bottom / height}}})
    return objects


def _serialised(array: np.ndarray) -> str:
    """An array as FiftyOne reads it: a file of numpy, compressed, in letters."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return b64encode(zlib.compress(file.getvalue())).decode()
