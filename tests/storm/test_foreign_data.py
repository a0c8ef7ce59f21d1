"""Data sets made by others: what leads out of the root, never ends or claims gigapixels costs one frame or video."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.clips import FolderSource
from pipeline.datasets.folders import load_json
from pipeline.errors import BadInput
from pipeline.foreign_files import inside, read_file
from pipeline.images import decode_image, image_size
from pipeline.shards import ShardSet, make_shards
from tests.own_data.exports import EXPORTS
from tests.own_data.worlds import SOURCES, edit
from tests.storm.hostile_files import (
    BOMBS,
    endless,
    fifo,
    jpeg_header,
    listening,
    png_header,
    ring,
    sparse,
    webp_header,
    zeros,
)

BY_FOLDER = ("vipseg", "youtube_vis", "vspw categories", "kitti_step categories")
FRAMES = {"vipseg": "images", "youtube_vis": "train/JPEGImages", "vspw categories": "data/*/origin",
          "kitti_step categories": "images/train"}
SECONDS = 20            # for a small data set; what hangs takes for ever
MEGABYTES = 300


def frames_of(root: Path, name: str) -> list[Path]:
    """The frames of the first video of the training split."""
    files = sorted(path for path in root.glob(f"{FRAMES[name]}/**/*") if path.suffix in (".jpg", ".png"))
    return [path for path in files if "train_00000" in path.parts]


@pytest.fixture(autouse=True)
def _bounded():
    """Nothing hangs, and nothing takes memory for what a header claims."""
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024


def skipped(root: Path, name: str, out: Path) -> list[dict]:
    """Make the shards of a data set of two videos; returns the errors of those that were skipped."""
    report = make_shards(SOURCES[name].open(root), out, split="train")
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert report.videos + len(errors) == 2
    assert len(ShardSet(out).videos) == report.videos
    return errors


def left_out(root: Path, name: str, out: Path) -> dict:
    """Make the shards of a data set of two videos of three frames; returns the error of the one frame that is lost."""
    report = make_shards(SOURCES[name].open(root), out, split="train")
    assert (report.videos, report.frames, report.skipped) == (2, 5, {})
    (error,) = map(json.loads, (out / "errors.jsonl").read_text().splitlines())
    return error


def stranger(path: Path) -> None:
    """A link to a picture of somebody else, which is not in the data set."""
    secret = next(folder for folder in path.parents if folder.name == "export").with_name("secret.jpg")
    Image.new("RGB", (64, 48)).save(secret)
    path.symlink_to(secret)


PLACES: dict[Callable[[Path], None], str] = {
    fifo: "not-a-file", listening: "not-a-file", endless: "unreadable", ring: "unreadable", zeros: "outside",
    sparse: "too-large"}


@pytest.mark.parametrize("name", BY_FOLDER)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_what_is_no_file_in_place_of_a_frame_costs_that_frame(tmp_path, name, place):
    root = SOURCES[name].write(tmp_path / "world")
    frame = frames_of(root, name)[1]
    frame.unlink()
    place(frame)
    if place is zeros:      # a link out of the data set costs its video
        (error,) = skipped(root, name, tmp_path / "out")
    else:
        error = left_out(root, name, tmp_path / "out")
        assert error["frame"] == frame.stem
    assert (error["video"], error["reason"]) == ("train_00000", PLACES[place])
    assert str(frame) in error["message"]


@pytest.mark.parametrize("name", ["vipseg", "vspw categories", "kitti_step categories", "coco_panoptic"])
@pytest.mark.parametrize("place", [fifo, sparse, zeros], ids=lambda place: place.__name__)
def test_what_is_no_file_in_place_of_a_label_costs_its_frame_the_label(tmp_path, name, place):
    root = SOURCES[name].write(tmp_path / "world")
    folder = {"vipseg": "panomasksRGB", "vspw categories": "data/*/mask", "coco_panoptic": "panoptic_train2017",
              "kitti_step categories": "panoptic_maps/train"}[name]
    label = next(path for path in sorted(root.glob(f"{folder}/**/*.png")) if "train" in str(path.relative_to(root)))
    label.unlink()
    place(label)
    if name == "coco_panoptic":         # a video of one frame
        (error,) = skipped(root, name, tmp_path / "out")
    else:
        report = make_shards(SOURCES[name].open(root), tmp_path / "out", split="train")
        (error,) = map(json.loads, (tmp_path / "out" / "errors.jsonl").read_text().splitlines())
        assert (report.videos, report.skipped, error["frame"]) == (2, {}, label.stem)
    assert error["reason"] == PLACES[place]


@pytest.mark.parametrize("name", BY_FOLDER)
@pytest.mark.parametrize("what", ["frame", "folder"])
def test_a_link_out_of_the_data_set_is_not_followed(tmp_path, name, what):
    root = SOURCES[name].write(tmp_path / "world")
    frame = frames_of(root, name)[1]
    target = frame if what == "frame" else frame.parent
    moved = tmp_path / f"elsewhere{target.suffix}"
    target.rename(moved)
    target.symlink_to(moved)
    (error,) = skipped(root, name, tmp_path / "out")
    assert (error["video"], error["reason"]) == ("train_00000", "outside")
    assert str(moved) in error["message"]


@pytest.mark.parametrize("name", BY_FOLDER)
def test_links_inside_the_data_set_and_a_linked_folder_of_all_frames_are_followed(tmp_path, name):
    root = SOURCES[name].write(tmp_path / "world")
    frame = frames_of(root, name)[1]
    frame.rename(root / f"pool{frame.suffix}")
    frame.symlink_to(root / f"pool{frame.suffix}")
    assert skipped(root, name, tmp_path / "out") == []
    top = root / FRAMES[name].split("/")[0]
    frame.unlink()
    (root / f"pool{frame.suffix}").rename(frame)
    top.rename(tmp_path / "disk")
    top.symlink_to(tmp_path / "disk")
    assert skipped(root, name, tmp_path / "again") == []


@pytest.mark.parametrize("id", ["../../secret", "/etc", "..", "a/../../../secret", "\0", "n" * 5000])
@pytest.mark.parametrize("name", BY_FOLDER)
def test_the_id_of_a_video_never_leads_out_of_the_data_set(tmp_path, name, id):
    root = SOURCES[name].write(tmp_path / "world")
    (tmp_path / "secret").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "secret" / "00000.jpg")
    with pytest.raises(BadInput):
        SOURCES[name].open(root).read(id)


@pytest.mark.parametrize("file_name", ["../../secret.jpg", "/etc/passwd", "link/secret.jpg"])
def test_an_image_of_coco_is_inside_its_folder(tmp_path, file_name):
    root = SOURCES["coco_instance"].write(tmp_path / "world")
    (tmp_path / "private").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "private" / "secret.jpg")
    (root / "train2017" / "link").symlink_to(tmp_path / "private")
    edit(root / SOURCES["coco_instance"].json,
         lambda content: content["images"][0].update(file_name=file_name))
    images = len(SOURCES["coco_instance"].open(root).video_ids())
    report = make_shards(SOURCES["coco_instance"].open(root), tmp_path / "out", split="train")
    assert report.videos == images - 1


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("decode", [decode_image, image_size])
def test_a_picture_that_claims_gigapixels_is_refused_by_its_header(bomb, decode):
    with pytest.raises(BadInput) as raised:
        decode(BOMBS[bomb])
    assert raised.value.reason == "too-large"


@pytest.mark.parametrize("bomb", [png_header(60_000, 20_000), jpeg_header(65_000, 20_000),
                                  webp_header(16_383, 16_000, kind="VP8")], ids=["png", "jpeg", "webp"])
@pytest.mark.parametrize("decode", [decode_image, image_size])
def test_its_size_is_named_with_the_width_first(bomb, decode):
    with pytest.raises(BadInput, match=r"claims (60000x20000|65000x20000|16383x16000) pixels"):
        decode(bomb)


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", BY_FOLDER)
def test_such_a_picture_costs_its_frame(tmp_path, name, bomb):
    root = SOURCES[name].write(tmp_path / "world")
    frame = frames_of(root, name)[0]
    frame.write_bytes(BOMBS[bomb])
    error = left_out(root, name, tmp_path / "out")
    assert (error["video"], error["frame"], error["reason"]) == ("train_00000", frame.stem, "too-large")


@pytest.mark.parametrize("place", [fifo, listening, endless, sparse], ids=lambda place: place.__name__)
def test_a_folder_to_predict_with_what_is_no_file_is_refused(tmp_path, place):
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "0.jpg")
    place(tmp_path / "1.jpg")
    with pytest.raises(BadInput, match=r"1\.jpg") as raised:
        FolderSource(tmp_path).frames(0, 2)
    assert raised.value.reason == PLACES[place]


@pytest.mark.parametrize("content", [b"[" * 10**6, b'{"a":' * 10**6, b"[" * 10**6 + b"]" * 10**6], ids=["[", "{", "[]"])
@pytest.mark.parametrize("name", ["vipseg", "youtube_vis", "coco_instance", "vspw categories"])
def test_json_a_million_levels_deep_is_named(tmp_path, name, content):
    root = SOURCES[name].write(tmp_path / "world")
    path = root / SOURCES[name].json
    path.write_bytes(content)

    def first_video():
        dataset = SOURCES[name].open(root)
        return dataset.read(dataset.video_ids()[0])

    with pytest.raises(BadInput, match=path.name) as raised:
        first_video()
    assert raised.value.reason == "bad-json"


@pytest.mark.parametrize("place", [fifo, sparse], ids=lambda place: place.__name__)
def test_what_is_no_file_in_place_of_a_json_is_named(tmp_path, place):
    place(tmp_path / "train.json")
    with pytest.raises(BadInput, match=r"train\.json") as raised:
        load_json(tmp_path / "train.json")
    assert raised.value.reason == PLACES[place]


@pytest.mark.parametrize("far", [1e5, 1e9, 1e14, -1e14])
def test_a_polygon_far_outside_takes_neither_memory_nor_the_video(tmp_path, far):
    root = SOURCES["coco_instance"].write(tmp_path / "world")
    polygon = [-far, -far, far, -far, far, far, -far, far]
    edit(root / SOURCES["coco_instance"].json,
         lambda content: content["annotations"][0].update(segmentation=[polygon], iscrowd=0))
    dataset = SOURCES["coco_instance"].open(root)
    report = make_shards(dataset, tmp_path / "out", split="train")
    assert report.videos == len(dataset.video_ids())


def test_a_regular_file_is_read_whole_and_bounded(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_file(path, largest=10) == b"0123456789"
    with pytest.raises(BadInput, match="10 bytes; at most 9"):
        read_file(path, largest=9)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path)


def test_a_path_is_inside_its_root_or_refused(tmp_path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "root2").mkdir()
    assert inside(root / "a", root) == root / "a"
    assert inside(root / "a/../a", root) == root / "a/../a"
    assert inside(root / "not there", root) == root / "not there"
    for path in (root / "..", root / "../root2", Path("/"), root / "\0"):
        with pytest.raises(BadInput) as raised:
            inside(path, root)
        assert raised.value.reason == "outside"


@pytest.mark.parametrize("tool", EXPORTS)
@pytest.mark.parametrize("place", [fifo, sparse, zeros, stranger], ids=lambda place: place.__name__)
def test_a_frame_of_an_export_is_a_file_inside_it(tmp_path, tool, place):
    root = EXPORTS[tool].write(tmp_path / "export")
    frame = next(path for path in sorted(root.glob("**/*.jpg")) if "train_00000" in path.parts)
    frame.unlink()
    place(frame)
    report = make_shards(EXPORTS[tool].open(root), tmp_path / "out", split="train")
    if place in (zeros, stranger):      # links out of the export
        assert (report.videos, report.skipped) == (1, {"outside": 1})
    else:
        (error,) = map(json.loads, (tmp_path / "out" / "errors.jsonl").read_text().splitlines())
        assert (report.videos, report.skipped, error["reason"], error["frame"]) == (2, {}, PLACES[place], frame.stem)


@pytest.mark.parametrize("tool", ["labelme", "cvat coco"])
@pytest.mark.parametrize("place", [fifo, sparse, zeros, stranger], ids=lambda place: place.__name__)
def test_the_json_of_an_export_is_a_file_inside_it(tmp_path, tool, place):
    root = EXPORTS[tool].write(tmp_path / "export")
    path = root / EXPORTS[tool].json
    path.unlink()
    place(path)
    report = make_shards(EXPORTS[tool].open(root), tmp_path / "out", split="train")
    reason = {**PLACES, stranger: "outside"}[place]
    if tool == "labelme":       # the json of one frame
        assert (report.videos, report.skipped, len(report.faults)) == (2, {}, 1)
    else:
        assert (report.videos, report.skipped) == (1, {reason: 1})
    (error,) = map(json.loads, (tmp_path / "out" / "errors.jsonl").read_text().splitlines())
    assert error["reason"] == reason
