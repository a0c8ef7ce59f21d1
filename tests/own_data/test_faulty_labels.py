"""A label map that cannot be read, or a class that nobody listed, costs its frame the label, in every reader.

The frame stays, is void, counted, and named with a cure. Where every labelled frame is faulty, the video is refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import check_dataset
from pipeline.errors import BadInput
from pipeline.faulty_labels import UNREADABLE
from pipeline.images import encode_png
from pipeline.records import Dataset
from pipeline.shards import ShardConfig, ShardSet, make_shards, verify
from tests.own_data.exports import export
from tests.own_data.renaming import written
from tests.own_data.test_exports import opened as opened_export
from tests.own_data.test_no_objects import on_own_data
from tests.own_data.worlds import SOURCES, edit

FRAMES = 4
MAPS = ("vipseg", "vipseg categories", "vspw categories", "kitti_step categories", "davis")
Damage = Callable[[Path], None]


def changed_to(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content) and None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


def larger(path: Path) -> None:
    with Image.open(path) as image:
        image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)


DAMAGES: dict[str, Damage] = {
    "cut": cut, "empty": changed_to(b""), "zeros": changed_to(bytes(200)), "a text": changed_to(b"not a picture"),
    "a folder": folder_in_its_place, "a dangling link": dangling_link, "of another size": larger}
UNKNOWN: dict[str, bytes] = {
    "vipseg": encode_png(np.full((48, 64, 3), 77, np.uint8)),
    "vipseg categories": encode_png(np.full((48, 64), 9999, np.uint16)),
    "vspw categories": encode_png(np.full((48, 64), 99, np.uint8)),
    "kitti_step categories": encode_png(np.full((48, 64, 3), 99, np.uint8)),
    "davis": encode_png(np.full((48, 64), 99, np.uint8))}


@pytest.fixture(params=MAPS)
def world(request, tmp_path) -> tuple[str, Callable[[], Dataset], Callable[[int], Path]]:
    """The reader, the way to open two videos, and the label maps of the first one."""
    _, opened = written(request.param, tmp_path / "data", frames=FRAMES)
    frames = opened().read(opened().video_ids()[0]).frames
    return request.param, opened, lambda frame: frames[frame].label


def check(opened: Callable[[], Dataset], folder: Path, path: Path) -> None:
    """Frame 2 of the first video has lost its label, is named, and nothing else has changed."""
    name, _ = opened().video_ids()
    report = make_shards(opened(), folder / "shards", split="train")
    assert (report.videos, report.skipped, len(report.faults)) == (2, {}, 1)
    assert report.remarks[UNREADABLE] == report.remarks["frames without a label"] == 1
    assert verify(folder / "shards") == []
    damaged, whole = ShardSet(folder / "shards").videos
    assert (damaged.labelled, whole.labelled) == ((0, 1, 3), (0, 1, 2, 3))
    (row,) = map(json.loads, (folder / "shards" / "errors.jsonl").read_text().splitlines())
    assert (row["video"], row["frame"]) == (name, damaged.frames[2].name)
    assert str(path) in row["message"]
    with pytest.raises(BadInput) as error:
        make_shards(opened(), folder / "strict", split="train", strict=True)
    assert error.value.cure


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_label_map_that_cannot_be_read_costs_its_frame_the_label(world, tmp_path, damage):
    _, opened, label = world
    before = make_shards(opened(), tmp_path / "before", split="train")
    content = label(2).read_bytes()
    damage(label(2))
    check(opened, tmp_path, label(2))
    shutil.rmtree(label(2)) if label(2).is_dir() else label(2).unlink()
    label(2).write_bytes(content)
    assert make_shards(opened(), tmp_path / "shards", split="train").fingerprint == before.fingerprint


def test_a_value_of_no_class_costs_its_frame_the_label(world, tmp_path):
    reader, opened, label = world
    label(2).write_bytes(UNKNOWN[reader])
    check(opened, tmp_path, label(2) if reader != "davis" else tmp_path / "data" / "meta.json")


def test_a_table_that_fits_no_frame_refuses_the_videos(world, tmp_path):
    reader, opened, label = world
    for frame in range(FRAMES):
        label(frame).write_bytes(UNKNOWN[reader])
    report = make_shards(opened(), tmp_path / "shards", split="train")
    assert (report.videos, sum(report.skipped.values()), report.faults) == (1, 1, ())


def test_a_map_that_a_json_annotates_and_that_is_gone_costs_the_label(tmp_path):
    _, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    path = opened().read(opened().video_ids()[0]).frames[2].label
    path.unlink()
    check(opened, tmp_path, path)


@pytest.mark.parametrize("change", [{"category_id": 99}, {"category_id": None}, {"id": "x"}, {"iscrowd": [1]}])
def test_a_faulty_segment_of_a_json_costs_its_frame_the_label(tmp_path, change):
    root, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    path = root / "panoptic_gt_VIPSeg_train.json"
    edit(path, lambda content: content["annotations"][0]["annotations"][2]["segments_info"][0].update(change))
    check(opened, tmp_path, path)


def track_in_two_frames(root: Path) -> None:
    """A track of an unknown category, which frame 2 alone shows."""
    def change(content: dict) -> None:
        track = json.loads(json.dumps(content["annotations"][0]))
        track |= {"id": 99, "category_id": 99}
        track["segmentations"] = [mask if frame == 2 else None for frame, mask in enumerate(track["segmentations"])]
        content["annotations"].append(track)

    edit(root / "train.json", change)


def annotation_of_coco_video(root: Path) -> None:
    def change(content: dict) -> None:
        (image,) = (image for image in content["images"] if (image["video_id"], image["frame_id"]) == (1, 2))
        content["annotations"].append({**content["annotations"][0], "id": 999, "image_id": image["id"],
                                       "instance_id": 99, "category_id": 99})

    edit(root / "coco_video.json", change)


def shape_of_labelme(root: Path) -> None:
    edit(root / "train" / "train_00000" / "2.json", lambda content: content["shapes"][0].update(label="nobody's"))
    (root / "labels.txt").write_text("disc\nsquare\ntriangle\ncross\n")


def annotation_of_cvat_coco(root: Path) -> None:
    def change(content: dict) -> None:
        image = content["images"][2]["id"]
        next(entry for entry in content["annotations"] if entry["image_id"] == image)["category_id"] = 99

    edit(root / "train" / "train_00000" / "annotations" / "instances_default.json", change)


def object_without_class_of_davis(root: Path) -> None:
    """Frame 2 shows an object of which meta.json has no class."""
    path = root / "Annotations" / "480p" / "train_00000" / "00002.png"
    path.write_bytes(encode_png(np.full((48, 64), 7, np.uint8)))
    edit(root / "meta.json", lambda content: content["videos"]["train_00000"]["objects"].update({"7": None}))


def group_of_labelme(root: Path) -> None:
    edit(root / "train" / "train_00000" / "2.json", lambda content: content["shapes"][0].update(group_id=[1]))


def crowd_of_cvat_coco(root: Path) -> None:
    def change(content: dict) -> None:
        image = content["images"][2]["id"]
        next(entry for entry in content["annotations"] if entry["image_id"] == image)["iscrowd"] = "no"

    edit(root / "train" / "train_00000" / "annotations" / "instances_default.json", change)


def frame_twice_in_vipseg(root: Path) -> None:
    def change(content: dict) -> None:
        frames = content["annotations"][0]["annotations"]
        frames.append(frames[2])

    edit(root / "panoptic_gt_VIPSeg_train.json", change)


TRACKS = {"youtube_vis": (track_in_two_frames, "train.json"),
          "coco video": (annotation_of_coco_video, "train.json"),
          "labelme": (shape_of_labelme, "train/train_00000/2.json"),
          "cvat coco": (annotation_of_cvat_coco, "train/train_00000/annotations/instances_default.json")}


OTHERS = {"davis": (object_without_class_of_davis, "meta.json"),
          "labelme": (group_of_labelme, "train/train_00000/2.json"),
          "cvat coco": (crowd_of_cvat_coco, "train/train_00000/annotations/instances_default.json"),
          "vipseg": (frame_twice_in_vipseg, "panoptic_gt_VIPSeg_train.json")}


@pytest.mark.parametrize(("reader", "change", "file"), [(reader, *case) for cases in (TRACKS, OTHERS)
                                                        for reader, case in cases.items()])
def test_a_faulty_object_costs_its_frames_the_label(tmp_path, reader, change, file):
    root, opened = written(reader, tmp_path / "data", frames=FRAMES)
    change(root)
    check(opened, tmp_path, root / file)


def test_too_many_faulty_labels_refuse_the_data_set(tmp_path):
    """Two thirds of the frames of each video hold a class that the table lacks."""
    _, opened = written("vspw categories", tmp_path / "data", frames=3)
    for video in opened().video_ids():
        for frame in opened().read(video).frames[:2]:
            frame.label.write_bytes(UNKNOWN["vspw categories"])
    message = r"the labels of 4 of 6 frames .*The first fault: .*the values \[99\]"
    with pytest.raises(BadInput, match=message) as error:
        make_shards(opened(), tmp_path / "shards", split="train")
    assert error.value.reason == "bad-labels"
    report = make_shards(opened(), tmp_path / "more", ShardConfig(max_bad_fraction=0.7), split="train")
    assert (report.videos, len(report.faults)) == (2, 4)


def test_check_dataset_names_the_frame(tmp_path, capsys):
    root, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    path = opened().read(opened().video_ids()[0]).frames[2].label
    cut(path)
    check_dataset.main(on_own_data("tiny", tmp_path / "run", root))
    said = capsys.readouterr().out
    assert f"1 {UNREADABLE}" in said
    assert f"faulty frame: video 'train_00000', file {path}: the PNG is cut off" in said


def test_what_belongs_to_no_listed_image_or_video_is_counted(tmp_path):
    root, opened = written("coco video", tmp_path / "video", frames=FRAMES)
    edit(root / "coco_video.json", lambda content: content["images"].append({**content["images"][0], "id": 999,
                                                                             "video_id": 77}))
    assert opened().remarks == {"images of no listed video": 1}
    root, opened = written("cvat coco", tmp_path / "export", frames=FRAMES)
    edit(root / "train" / "train_00000" / "annotations" / "instances_default.json",
         lambda content: content["annotations"].extend([None, {**content["annotations"][0], "image_id": 999}]))
    assert opened().read("train_00000").remarks["annotations of no listed image"] == 2


def test_a_faulty_video_of_meta_json_costs_that_video(tmp_path):
    root, opened = written("davis", tmp_path / "data", frames=FRAMES)
    edit(root / "meta.json", lambda content: content["videos"].update(train_00000=None, other=[1]))
    dataset = opened()
    with pytest.raises(BadInput, match="video 'train_00000' is None"):
        dataset.read("train_00000")
    assert dataset.read("train_00001").segments


@pytest.mark.parametrize("content", ["<html><body>log in</body></html>", "<annotation><track/></annotation>"])
def test_an_xml_of_something_else_is_no_export_without_objects(tmp_path, content):
    root = export("cvat", SOURCES["youtube_vis"].write(tmp_path / "world"), tmp_path / "cvat")
    (root / "train" / "train_00000" / "annotations.xml").write_text(content)
    with pytest.raises(BadInput, match="its outermost element is"):
        opened_export("cvat", root).read("train_00000")
