"""Every export, read by a reader of its format, gives back the masks, classes and scores that were written."""

from __future__ import annotations

import io
import json
import zlib
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from pycocotools import mask as coco

from model.contracts import PanopticVideo, VideoResults, VideoSegment
from model.labels import VOID, ClassInfo, ClassTable, panoptic_id
from pipeline.datasets.cvat_xml import XmlExport
from pipeline.datasets.tracked_masks import TrackedMasks
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.exports import EXPORTS, TrackedVideo, tracked_videos
from pipeline.exports.rerun_recording import numbers
from pipeline.images import encode_jpeg
from pipeline.predictions import PredictionWriter

CLASSES = ClassTable("three", (ClassInfo(1, "sky & sea", False, (9, 9, 200)), ClassInfo(4, "disc", True, (200, 9, 9)),
                               ClassInfo(7, "square", True, (9, 200, 9))))
FRAMES = ("000000", "000001", "000002")
DISC = panoptic_id(1, 1)
SQUARE = panoptic_id(2, 1)


def maps() -> list[np.ndarray]:
    """Sky at the top; a disc of two pieces that is gone in the second frame; a square in the corner of the last."""
    frames = [np.full((6, 9), VOID, np.int32) for _ in FRAMES]
    for frame in frames:
        frame[0] = panoptic_id(0, 0)
    for frame in (frames[0], frames[2]):
        frame[2:4, 1:3] = DISC
        frame[4, 4] = DISC
    frames[2][5, 8] = SQUARE
    return frames


@pytest.fixture
def videos(tmp_path) -> list[TrackedVideo]:
    """Two finished predictions, read back."""
    writer = PredictionWriter(folder=tmp_path / "predictions", classes=CLASSES, made_by={})
    segments = {panoptic_id(0, 0): VideoSegment(class_index=0, track=0, score=0.5),
                DISC: VideoSegment(class_index=1, track=1, score=0.75),
                SQUARE: VideoSegment(class_index=2, track=1, score=1.0)}
    for video in ("a", "b c"):
        panoptic = PanopticVideo(video_id=video, frame_names=FRAMES, frames=maps(), segments=segments)
        writer.write(VideoResults(panoptic=panoptic), times=(0.0, 0.5, 1.0))
    writer.finish()
    return list(tracked_videos(tmp_path / "predictions"))


@pytest.fixture
def data(tmp_path) -> Path:
    """A data set with a frame of every name, and no labels yet."""
    for video in ("a", "b c"):
        folder = tmp_path / "data" / "train" / "JPEGImages" / video
        folder.mkdir(parents=True)
        for frame in FRAMES:
            (folder / f"{frame}.jpg").write_bytes(encode_jpeg(np.zeros((6, 9, 3), np.uint8)))
    return tmp_path / "data"


def discs(masks: list[dict | None]) -> None:
    """Assert that run lengths are those of the disc."""
    assert masks[1] is None or not coco.area(masks[1])
    for frame in (0, 2):
        np.testing.assert_array_equal(coco.decode(masks[frame]), maps()[frame] == DISC)


def test_a_json_of_coco_is_read_as_a_data_set(videos, data, tmp_path):
    [file] = EXPORTS["coco_video"](videos, tmp_path)
    content = json.loads(file.read_text())
    discs(content["annotations"][1]["segmentations"])
    assert content["annotations"][1]["bboxes"] == [[1, 2, 4, 3], None, [1, 2, 4, 3]]
    for video in content["videos"]:
        video["file_names"] = [f"{name}.jpg" for name in video["file_names"]]
    (data / "train.json").write_text(json.dumps(content))
    read = YouTubeVis(str(data))
    assert [info.name for info in read.classes.classes] == ["sky & sea", "disc", "square"]
    discs([frame.masks.get(2) for frame in read.read("a").frames])


def test_an_xml_of_cvat_gives_back_every_mask(videos, data, tmp_path):
    files = EXPORTS["cvat"](videos, tmp_path)
    assert [file.name for file in files] == ["a.xml", "b c.xml"]
    export = XmlExport(files[0], "a")
    assert export.labels() == ["sky & sea", "disc", "square"]
    images = {frame: data / "train" / "JPEGImages" / "a" / f"{frame}.jpg" for frame in FRAMES}
    tracks = {track.label: dict(track.masks) for track in export.tracks(FRAMES, TrackedMasks("a", images))}
    discs([tracks["disc"].get(name) for name in FRAMES])
    assert list(tracks["square"]) == ["000002"]
    assert len(tracks["sky & sea"]) == 3


def test_labels_of_fiftyone_hold_every_mask_in_its_box(videos, tmp_path):
    *labels, manifest = EXPORTS["fiftyone"](videos, tmp_path)
    index = json.loads(manifest.read_text())["index"]
    assert [manifest.parent / entry["labels"] for entry in index] == labels
    frames = json.loads(labels[0].read_text())["frames"]
    assert list(frames) == ["1", "2", "3"]
    _, disc = frames["1"]["objects"]["objects"]
    assert (disc["label"], disc["index"], disc["confidence"]) == ("disc", 2, 0.75)
    box = disc["bounding_box"]
    assert (box["top_left"], box["bottom_right"]) == ({"x": 1 / 9, "y": 2 / 6}, {"x": 5 / 9, "y": 5 / 6})
    inside = np.load(io.BytesIO(zlib.decompress(b64decode(disc["mask"]))), allow_pickle=False)
    np.testing.assert_array_equal(inside, (maps()[0] == DISC)[2:5, 1:5])
    assert [item["label"] for item in frames["2"]["objects"]["objects"]] == ["sky & sea"]


def test_fiftyone_reads_its_labels(videos, tmp_path):
    readers = pytest.importorskip("fiftyone.utils.data.importers", reason="fiftyone is not installed")
    *_, manifest = EXPORTS["fiftyone"](videos, tmp_path)
    with readers.FiftyOneVideoLabelsDatasetImporter(str(manifest.parent), compute_metadata=False) as read:
        (_, _, _, frames), _ = read
    [disc] = [item for item in frames[3]["detections"].detections if item.label == "disc"]
    np.testing.assert_array_equal(disc.mask, (maps()[2] == DISC)[2:5, 1:5])
    assert (disc.index, disc.confidence) == (2, 0.75)
    assert len(frames[2]["detections"].detections) == 1


def test_a_table_has_a_row_for_each_track(videos, tmp_path):
    [file] = EXPORTS["parquet"](videos, tmp_path)
    rows = parquet.read_table(file).to_pylist()
    assert [(row["video"], row["class"], row["score"]) for row in rows] == [
        (video, name, score) for video in ("a", "b c")
        for name, score in (("sky & sea", 0.5), ("disc", 0.75), ("square", 1.0))]
    discs(rows[1]["masks"])
    assert rows[0]["times"] == [0.0, 0.5, 1.0]


def test_a_recording_of_rerun_has_every_frame(videos, tmp_path):
    np.testing.assert_array_equal(numbers(videos[0], 2) == 2, maps()[2] == DISC)
    pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install rerun-sdk")
    files = EXPORTS["rerun"](videos, tmp_path)
    assert [Path(file).read_bytes()[:3] for file in files] == [b"RRF", b"RRF"]


def test_an_export_of_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(tracked_videos(tmp_path))
