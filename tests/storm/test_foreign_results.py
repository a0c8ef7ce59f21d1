"""Results made by others, and ids that are paths: nothing is read or written outside, and no archive takes memory."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.contracts import PanopticVideo, SemanticVideo, VideoResults, VideoSegment
from model.labels import VOID, ClassInfo, ClassTable, panoptic_id
from pipeline.clips import FolderSource
from pipeline.errors import BadInput
from pipeline.file_names import can_name_a_file, name_for
from pipeline.images import encode_jpeg
from pipeline.predictions import PredictionWriter, read_predictions, read_results
from pipeline.predictions.server_results import ListedVideo
from pipeline.visualise.drawing import draw

CLASSES = ClassTable("two", (ClassInfo(1, "cat", True, (200, 0, 0)), ClassInfo(4, "sky", False, (0, 200, 0))))
VIDEOS = {"a": ListedVideo(number=1, video_id="a", frame_names=("0",), size=(4, 6))}
CAT = panoptic_id(0, 1)
PATHS = ["../x", "../../x", "/tmp/x", "a/b", "..", ".", "", "x\0y", "x\ny", "n" * 5000, "\ud800"]
FORMATS = {"vipseg": "panoptic", "kitti_step": "panoptic", "youtube_vis": "panoptic", "vspw": "semantic"}


def results(video_id: str = "v", frame: str = "0") -> VideoResults:
    maps = [np.full((48, 64), CAT, np.int32)]
    panoptic = PanopticVideo(video_id=video_id, frame_names=(frame,), frames=maps,
                             segments={CAT: VideoSegment(class_index=0, track=1)})
    semantic = SemanticVideo(video_id=video_id, frame_names=(frame,), frames=[np.where(maps[0] == CAT, 0, VOID)])
    return VideoResults(panoptic=panoptic, semantic=semantic)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", PATHS)
def test_an_id_that_is_no_name_is_no_name_of_a_file(name):
    assert not can_name_a_file(name)
    with pytest.raises(BadInput) as raised:
        name_for(name)
    assert raised.value.reason == "bad-name"


@pytest.mark.parametrize("name", ["v", "B.mov", "ä ö", "a+b", "..a", "-x", "n" * 200, "~", "a\\b"])
def test_any_other_id_names_its_file_as_it_is(name):
    assert name_for(name) == name


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("id", PATHS)
def test_nothing_is_written_outside_of_the_folder_of_results(tmp_path, id, format):
    writer = PredictionWriter(folder=tmp_path / "a/b/out", classes=CLASSES, made_by={}, formats=(format,))
    with pytest.raises(BadInput) as raised:
        writer.write(results(video_id=id))
    assert raised.value.reason == "bad-name"
    if format != "youtube_vis":         # which has no file per frame
        with pytest.raises(BadInput) as raised:
            writer.write(results(frame=id))
        assert (raised.value.reason, raised.value.video) == ("bad-name", "v")
        assert not writer.is_finished("v")
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("id", PATHS)
def test_no_overlay_is_written_outside_of_its_folder(tmp_path, id):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.jpg").write_bytes(encode_jpeg(np.zeros((48, 64, 3), np.uint8)))
    source = FolderSource(tmp_path / "frames")
    with pytest.raises(BadInput, match="cannot name a folder or file"):
        draw(source, results(video_id=id).panoptic, CLASSES, tmp_path / "a/b/overlays")
    assert files_in(tmp_path) == {"frames/0.jpg"}
    assert draw(source, results().panoptic, CLASSES, tmp_path / "overlays") == tmp_path / "overlays" / "v.mp4"


@pytest.mark.parametrize("name", ["../../../secret.png", "/etc/passwd", "link.png"])
def test_maps_are_read_only_inside_the_folder_of_maps(tmp_path, name):
    writer = PredictionWriter(folder=tmp_path / "out", classes=CLASSES, made_by={})
    writer.write(results())
    writer.finish()
    good = writer.folder / "pan_pred" / "v" / "0.png"
    (tmp_path / "secret.png").write_bytes(good.read_bytes())
    (good.parent / "link.png").symlink_to(tmp_path / "secret.png")
    pred = json.loads((writer.folder / "pred.json").read_text())
    pred["annotations"][0]["annotations"][0]["file_name"] = name
    (writer.folder / "pred.json").write_text(json.dumps(pred))
    with pytest.raises(BadInput) as raised:
        list(read_predictions(writer.folder)["v"].frames)
    assert (raised.value.reason, raised.value.video) == ("outside", "v")


def test_the_video_of_a_prediction_is_a_name(tmp_path):
    writer = PredictionWriter(folder=tmp_path / "out", classes=CLASSES, made_by={})
    writer.write(results())
    writer.finish()
    pred = json.loads((writer.folder / "pred.json").read_text())
    pred["annotations"].append({**pred["annotations"][0], "video_id": "../pan_pred/v"})
    (writer.folder / "pred.json").write_text(json.dumps(pred))
    read = read_predictions(writer.folder)
    assert len(list(read["v"].frames)) == 1
    with pytest.raises(BadInput) as raised:
        read["../pan_pred/v"]
    assert raised.value.reason == "bad-name"


def refused(path: Path) -> BadInput:
    with pytest.raises(BadInput) as raised:
        read_results(path, videos=VIDEOS, classes=CLASSES)
    assert str(path) in str(raised.value)
    return raised.value


def archive(content: bytes, *, method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("results.json", content)
    return bytearray(buffer.getvalue())


def test_a_zip_of_nothing_is_read(tmp_path):
    (tmp_path / "results.zip").write_bytes(archive(b"[]"))
    assert read_results(tmp_path / "results.zip", videos=VIDEOS, classes=CLASSES)["a"].tracks == ()


def test_a_zip_that_unpacks_to_far_more_is_not_unpacked(tmp_path):
    (tmp_path / "results.zip").write_bytes(archive(b"[" + b" " * 110_000_000 + b"]"))
    assert (tmp_path / "results.zip").stat().st_size < 400_000
    assert refused(tmp_path / "results.zip").reason == "too-large"


def test_a_zip_that_claims_terabytes_is_not_unpacked(tmp_path):
    data = archive(b"[]")
    place = data.index(b"PK\1\2") + 24
    data[place:place + 4] = b"\xfe\xff\xff\xff"
    (tmp_path / "results.zip").write_bytes(data)
    assert refused(tmp_path / "results.zip").reason == "too-large"


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 97), (10, 9)], ids=["encrypted", "unknown", "deflate64"])
def test_a_zip_that_cannot_be_unpacked_is_named(tmp_path, offset, value):
    data = archive(b"[]")
    for signature, start in ((b"PK\1\2", offset), (b"PK\3\4", offset - 2)):
        struct.pack_into("<H", data, data.index(signature) + start, value)
    (tmp_path / "results.zip").write_bytes(data)
    assert refused(tmp_path / "results.zip").reason == "bad-json"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_with_damaged_bytes_is_named(tmp_path, method):
    whole = archive(b'[{"video_id": 1}]' * 50, method=method)
    start = 30 + len("results.json")
    for place in range(start, data_end(whole), 3):
        data = bytearray(whole)
        data[place] ^= 0xFF
        (tmp_path / "results.zip").write_bytes(data)
        refused(tmp_path / "results.zip")


def data_end(data: bytes) -> int:
    return data.index(b"PK\1\2")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("content", [b"[" * 10**6, b'[{"a":' * 10**6, b"", b"{}", b"7"], ids=["[", "{", "", "{}", "7"])
def test_results_that_are_no_list_of_tracks_are_named(tmp_path, content, zipped):
    (tmp_path / "results").write_bytes(archive(content) if zipped else content)
    assert refused(tmp_path / "results").reason == "bad-json"


def test_what_is_no_file_in_place_of_results_is_named(tmp_path):
    os.mkfifo(tmp_path / "results.json")
    assert refused(tmp_path / "results.json").reason == "not-a-file"
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**42)
    assert refused(tmp_path / "huge.json").reason == "too-large"


def test_writing_again_after_a_bad_name_needs_nothing_removed(tmp_path):
    writer = PredictionWriter(folder=tmp_path / "out", classes=CLASSES, made_by={})
    with pytest.raises(BadInput):
        writer.write(results(video_id="../x"))
    writer.write(results())
    assert json.loads(writer.finish().read_text())["videos"] == 1
    assert writer.is_finished("v")
    assert not replace(writer, made_by={"other": 1}, folder=tmp_path / "new").is_finished("v")
