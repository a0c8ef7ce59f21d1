"""Every input of own_data that a reader can reach, as it should be read: order, objects, classes, and what is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from pipeline.clips import FolderSource
from pipeline.datasets import DatasetConfig, open_dataset
from pipeline.errors import BadInput
from pipeline.shards import ShardSet, make_shards

FRAMES = ("00000", "00001", "00002")


def sharded(folder: Path, tmp_path: Path, *, name: str, split: str = "train") -> ShardSet:
    dataset = open_dataset(DatasetConfig(name=name, root=str(folder / "data"), split=split))
    make_shards(dataset, tmp_path / split, split=split)
    return ShardSet(tmp_path / split)


@pytest.mark.parametrize("split", ["train", "val"])
def test_frames_without_padded_numbers_are_in_the_order_of_time(own_data, tmp_path, split):
    shards = sharded(own_data / "raw_unpadded_names", tmp_path, name="vipseg", split=split)
    for video in shards.videos:
        assert [frame.name for frame in video.frames] == [f"frame{index}" for index in range(12)]
        folder = own_data / "raw_unpadded_names" / "data" / "imgs" / video.video_id
        assert [jpeg for jpeg, _ in shards.read(video, 0, 12)] == [
            (folder / f"frame{index}.jpg").read_bytes() for index in range(12)]
        assert FolderSource(folder).frame_names == tuple(frame.name for frame in video.frames)


@pytest.mark.parametrize("split", ["train", "val"])
def test_colours_as_fractions_are_read(own_data, tmp_path, split):
    shards = sharded(own_data / "category_color_floats", tmp_path, name="vipseg", split=split)
    assert [info.color for info in shards.classes.classes] == [(60, 80, 100), (220, 60, 60), (60, 200, 80),
                                                               (230, 210, 60)]


def test_class_ids_that_the_raw_coding_cannot_store_are_one_named_refusal(own_data):
    """The label maps of this folder hold values that have overflowed 16 bits, so no reader can tell them apart."""
    with pytest.raises(BadInput, match=r"'ground' has the id 700; .* ids go up to 654\. Number the classes") as error:
        open_dataset(DatasetConfig(name="vipseg", root=str(own_data / "raw_category_700" / "data")))
    assert error.value.file.name == "panoVIPSeg_categories.json"


def test_frames_without_a_label_are_kept_without_one_and_counted(own_data, tmp_path):
    shards = sharded(own_data / "sparse_labels", tmp_path, name="vipseg")
    for video in shards.videos:
        assert len(video.frames) == 8
        assert [frame.index for frame in video.frames if frame.label is not None] == [0, 4]
        assert shards.ids(video, 0).any()
        assert not shards.ids(video, 1).any()
    assert shards.manifest["remarks"] == {"frames without a label": 12}


VIS = ("vis_backslash", "vis_bom", "vis_cocovid", "vis_flat_polygon", "vis_string_ids")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("folder", VIS)
def test_every_form_of_the_same_annotation_is_read_as_the_same_objects(own_data, tmp_path, folder, split):
    """The folders hold the same three videos; the masks are compared with those of the plainest one."""
    shards = sharded(own_data / folder, tmp_path / "odd", name="youtube_vis", split=split)
    plain = sharded(own_data / "vis_bom", tmp_path / "plain", name="youtube_vis", split=split)
    names = [f"{split}_{index:03d}" for index in range(3 if split == "train" else 1)]
    assert [video.video_id for video in shards.videos] == names
    assert shards.manifest["remarks"] == {}
    for video, same in zip(shards.videos, plain.videos, strict=True):
        assert tuple(frame.name for frame in video.frames) == FRAMES
        assert [segment.class_index for segment in video.segments] == [s.class_index for s in same.segments]
        for frame in range(3):
            assert shards.masks(video, frame) == plain.masks(same, frame)
            assert len(shards.masks(video, frame)) == 3


def _without(field):
    return lambda entry: entry.pop(field)


@pytest.mark.parametrize(("change", "frames"), [(_without("file_name"), 2), (_without("id"), 3),
                                                (lambda entry: entry.update(id=[1]), 3)])
def test_one_faulty_image_of_a_coco_video_json_costs_its_frame(own_data, tmp_path, change, frames):
    """Without a name there is no picture; without an id there is no label."""
    shards, error = with_change(own_data, tmp_path, "images", change)
    assert [len(video.frames) for video in shards.videos] == [frames, 3, 3]
    assert [len(video.labelled) for video in shards.videos] == [2, 3, 3]
    assert (error["video"], "train.json" in error["message"]) == ("train_000", True)


@pytest.mark.parametrize("change", [_without("category_id"), lambda entry: entry.update(iscrowd="maybe"),
                                    lambda entry: entry.update(instance_id=None)])
def test_one_faulty_annotation_of_a_coco_video_json_costs_its_frame_the_label(own_data, tmp_path, change):
    shards, error = with_change(own_data, tmp_path, "annotations", change)
    assert [(video.video_id, video.labelled) for video in shards.videos] == [
        ("train_000", (1, 2)), ("train_001", (0, 1, 2)), ("train_002", (0, 1, 2))]
    assert (error["video"], error["frame"], "train.json" in error["message"]) == ("train_000", "00000", True)


def with_change(own_data, tmp_path, section, change):
    """The shards after a change of the first entry of a list, and the one line of errors.jsonl."""
    shutil.copytree(own_data / "vis_cocovid", tmp_path / "in")
    path = tmp_path / "in" / "data" / "train.json"
    path.chmod(0o644)
    content = json.loads(path.read_text())
    change(content[section][0])
    path.write_text(json.dumps(content))
    shards = sharded(tmp_path / "in", tmp_path / "out", name="youtube_vis")
    [error] = map(json.loads, (shards.folder / "errors.jsonl").read_text().splitlines())
    return shards, error


@pytest.mark.parametrize("section", ["images", "annotations"])
def test_an_entry_of_a_coco_video_json_that_is_no_object_is_counted(own_data, tmp_path, section):
    shutil.copytree(own_data / "vis_cocovid", tmp_path / "in")
    path = tmp_path / "in" / "data" / "train.json"
    path.chmod(0o644)
    content = json.loads(path.read_text())
    content[section].append(7)
    path.write_text(json.dumps(content))
    shards = sharded(tmp_path / "in", tmp_path / "out", name="youtube_vis")
    assert len(shards.videos) == 3
    assert shards.manifest["remarks"] == {"images or annotations that cannot be read, of no listed video": 1}


@pytest.mark.parametrize("folder", [name for name in VIS if name != "vis_cocovid"])
def test_masks_have_the_areas_that_the_json_lists(own_data, folder):
    """To the pixels on the outline, where rounding differs."""
    root = own_data / folder / "data"
    dataset = open_dataset(DatasetConfig(name="youtube_vis", root=str(root)))
    content = json.loads((root / "train.json").read_bytes().decode("utf-8-sig"))
    areas = {int(entry["id"]): entry["areas"] for entry in content["annotations"]}
    for name in dataset.video_ids():
        video = dataset.read(name)
        for segment in video.segments:
            read = [int(run_lengths.area(frame.masks[segment.id])) for frame in video.frames]
            np.testing.assert_allclose(read, areas[segment.id], rtol=0.15)


def test_a_corner_that_is_no_number_costs_its_frame_and_names_track_frame_and_value(own_data, tmp_path):
    shards = sharded(own_data / "vis_nan_polygon", tmp_path, name="youtube_vis")
    assert [(video.video_id, video.labelled) for video in shards.videos] == [
        ("train_000", (1, 2)), ("train_001", (0, 1, 2)), ("train_002", (0, 1, 2))]
    [error] = map(json.loads, (shards.folder / "errors.jsonl").read_text().splitlines())
    assert error["video"] == "train_000"
    assert "track 1, frame 0: a corner of the polygon is nan" in error["message"]
    assert "train.json" in error["message"]


@pytest.mark.parametrize(("folder", "names"), [
    ("frames_appledouble", (*FRAMES, "00003")), ("webp_named_jpg", (*FRAMES, "00003")),
    ("superscript_names", ("0²0", "1²1", "2²2", "3²3"))])
def test_folders_of_frames_are_read_by_content_without_companions(own_data, folder, names):
    source = FolderSource(own_data / folder / ("in/s" if folder == "superscript_names" else "in"))
    assert source.frame_names == names
    assert [image.shape for image in source.frames(0, 4)] == [(64, 96, 3)] * 4
