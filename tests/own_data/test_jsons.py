"""Fields of annotation jsons in the forms that people's tools write: read, or left out and counted, or named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from pipeline.datasets.run_lengths import packed_mask
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.errors import BadInput
from pipeline.shards import ShardSet, make_shards
from tests.own_data.worlds import SOURCES, as_coco_video, edit, save

JSON_READERS = ("vipseg", "youtube_vis", "coco video", "coco_panoptic", "coco_instance")
IDS = ("id", "video_id", "image_id", "category_id", "instance_id")


def records(name: str, root: Path, split: str = "train") -> list:
    dataset = SOURCES[name].open(root, split)
    return [dataset.read(video) for video in dataset.video_ids()]


def everywhere(content, change) -> None:
    """Apply `change` to every object of a json, from the inside out."""
    for value in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        everywhere(value, change)
    if isinstance(content, dict):
        change(content)


def ids_as(kind):
    def change(entry: dict) -> None:
        for field in IDS:
            if isinstance(entry.get(field), int):
                entry[field] = kind(entry[field])
    return change


def sizes_as_floats(entry: dict) -> None:
    for field in ("height", "width"):
        if isinstance(entry.get(field), int):
            entry[field] = float(entry[field])
    if isinstance(entry.get("size"), list):
        entry["size"] = [float(side) for side in entry["size"]]


def backslashes(entry: dict) -> None:
    if "file_name" in entry:
        entry["file_name"] = entry["file_name"].replace("/", "\\")
    if "file_names" in entry:
        entry["file_names"] = [name.replace("/", "\\") for name in entry["file_names"]]


def flags_as_bools(entry: dict) -> None:
    for field in ("iscrowd", "isthing"):
        if field in entry:
            entry[field] = bool(entry[field])


FORMS = {"ids as texts": ids_as(str), "ids as floats": ids_as(float), "sizes as floats": sizes_as_floats,
         "backslashes": backslashes, "flags as true and false": flags_as_bools,
         "more fields than are read": lambda entry: entry.update(comment={"by": ["me"]}, score=None)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", JSON_READERS)
def test_values_with_one_obvious_meaning_are_read(tmp_path, name, form):
    root = SOURCES[name].write(tmp_path / "world")
    before = records(name, root)
    assert all(video.segments for video in before)
    edit(root / SOURCES[name].json, lambda content: everywhere(content, FORMS[form]))
    assert records(name, root) == before


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_byte_order_mark_changes_nothing(tmp_path, name, encoding):
    root = SOURCES[name].write(tmp_path / "world")
    before = records(name, root)
    path = root / SOURCES[name].json
    path.write_bytes(path.read_text().encode(encoding))
    for listed in root.glob("*.txt"):
        listed.write_bytes(b"\r\n".join([b"\xef\xbb\xbf", *listed.read_bytes().split(), b""]))
    assert records(name, root) == before


def test_the_real_videos_read_the_same_through_a_coco_video_json(real_data, tmp_path):
    content = json.loads((real_data / "real_vis" / "instances.json").read_text())
    (tmp_path / "JPEGImages").symlink_to(real_data / "real_vis" / "JPEGImages")
    save(tmp_path / "train.json", as_coco_video(content))
    plain = YouTubeVis(str(real_data / "real_vis"))
    converted = YouTubeVis(str(tmp_path))
    assert converted.video_ids() == plain.video_ids()
    for video in plain.video_ids():
        same = converted.read(video)
        before = plain.read(video)
        assert (same.segments, same.height, same.width) == (before.segments, before.height, before.width)
        assert [(frame.name, frame.masks) for frame in same.frames] == [(frame.name, frame.masks)
                                                                        for frame in before.frames]


@pytest.mark.parametrize("ids", [range(9), "abcdefghi"], ids=["from 0", "texts"])
def test_tracks_of_a_coco_video_may_be_numbered_from_0_or_by_texts(tmp_path, ids):
    root = SOURCES["coco video"].write(tmp_path / "world")
    before = records("coco video", root)
    number = {}

    def change(content: dict) -> None:
        for entry in content["annotations"]:
            entry["track_id"] = number.setdefault(entry.pop("instance_id"), ids[len(number)])

    edit(root / "coco_video.json", change)
    assert records("coco video", root) == before


BOX = np.zeros((48, 64), np.uint8)
BOX[10:20, 5:30] = 1
CORNERS = [5, 10, 30, 10, 30, 20, 5, 20]


@pytest.mark.parametrize("mask", [
    [CORNERS], CORNERS, [[float(number) for number in CORNERS]], [[5, 10], [30, 10], [30, 20], [5, 20]],
    [[[5, 10], [30, 10], [30, 20], [5, 20]]], [[1, 1, 2, 2], CORNERS, []],
    {"size": [48.0, "64"], "counts": run_lengths.encode(np.asfortranarray(BOX))["counts"].decode()},
], ids=["polygons", "one flat list", "floats", "pairs", "polygons of pairs", "with slivers", "run lengths"])
def test_a_mask_in_any_form_is_the_same_box(mask):
    packed = packed_mask(mask, height=48, width=64)
    np.testing.assert_array_equal(run_lengths.decode(packed), BOX)


@pytest.mark.parametrize("far", [1e4, 1e6, 1e9, 1e14])
def test_corners_far_outside_are_cut_at_the_frame_and_take_no_memory(far):
    """A triangle whose sides cross the frame, whatever the distance of its corners; the frame's part stays."""
    half = packed_mask([[32, -far, 32, far, far, 0]], height=48, width=64)
    expected = np.zeros((48, 64), np.uint8)
    expected[:, 32:] = 1
    np.testing.assert_array_equal(run_lengths.decode(half), expected)
    everything = packed_mask([[-far, -far, far, -far, far, far, -far, far]], height=48, width=64)
    assert run_lengths.area(everything) == 48 * 64
    assert packed_mask([[far, far, far + 9, far, far, far + 9]], height=48, width=64) is None


def test_a_polygon_that_reaches_out_a_little_is_drawn_by_coco_itself():
    """So that official data, whose polygons do, stay as they are, pixel by pixel."""
    polygon = [-3.5, -2.0, 70.25, 5.5, 60.0, 55.0, 10.0, 49.5]
    drawn = run_lengths.merge(run_lengths.frPyObjects([polygon], 48, 64))
    assert packed_mask([polygon], height=48, width=64)["counts"] == drawn["counts"]


@pytest.mark.parametrize(("mask", "words"), [
    ([[5, 5, float("nan"), 9, 9, 9]], "corner of the polygon is nan"), ([[5, 5, float("inf"), 9, 9, 9]], "is inf"),
    ([[5, 5, "9", 9, 9, 9]], "is '9'"), ([[5, 5, None, 9, 9, 9]], "is None"), ([[1, 2, 3, 4, 5, 6, 7]], "7 numbers"),
    ([[5, 5, True, 9, 9, 9]], "is True"), ([[5, 5, 10**400, 9, 9, 9]], "bits"), ([5, [6]], "is a list of 1"),
    ([[1, 2, 3, 4, 5, 6], 7], "polygons is 7"), ("abc", "the mask is 'abc'"), (True, "the mask is True"),
    ({"size": [48, 64]}, "need size and counts"), ({"size": [64, 48], "counts": [3072]}, r"\[64, 48\]"),
    ({"size": "all", "counts": [3072]}, "'all'"), ({"size": [48, 64], "counts": [1.5, 3070.5]}, "is 1.5"),
    ({"size": [48, 64], "counts": None}, "are None"), ({"size": [48, 64], "counts": "\ud800"}, "cannot be read"),
    ({"size": [48, 64], "counts": [10**30]}, "sum to 1000"), ({"size": [48, 64], "counts": []}, "sum to 0"),
    ({"size": [48, 64], "counts": [-5, 3077]}, "smallest is -5")])
def test_a_mask_that_is_none_is_named_in_plain_words(mask, words):
    with pytest.raises(ValueError, match=words) as error:
        packed_mask(mask, height=48, width=64)
    assert not any(python in str(error.value) for python in ("ndarray", "object is not", "NoneType", "TypeError"))


def test_boxes_without_masks_and_thin_objects_are_left_out_and_counted(tmp_path):
    root = SOURCES["coco_instance"].write(tmp_path / "world")
    before = [len(video.segments) for video in records("coco_instance", root)]

    def change(content: dict) -> None:
        first, second, *_ = [entry for entry in content["annotations"] if entry["image_id"] == 1]
        first["bbox"] = [3, 3, 20, 20]
        first["segmentation"] = []
        second["segmentation"] = [[3, 3, 9, 3, 3, 3]]
        content["annotations"].append({**second, "id": 999, "image_id": 77})

    edit(root / SOURCES["coco_instance"].json, change)
    dataset = SOURCES["coco_instance"].open(root)
    report = make_shards(dataset, tmp_path / "shards", split="train")
    assert report.remarks == {"boxes without a mask": 1, "objects without a pixel": 1,
                              "annotations of no listed image": 1}
    assert [len(video.segments) for video in records("coco_instance", root)] == [before[0] - 2, before[1]]
    assert ShardSet(tmp_path / "shards").manifest["remarks"] == report.remarks


LISTS = {"youtube_vis": "videos", "coco_panoptic": "images", "coco_instance": "images"}


@pytest.mark.parametrize("entry", [None, 7, "text", [], {}, {"id": 1.5}], ids=repr)
@pytest.mark.parametrize("name", LISTS)
def test_a_bad_entry_costs_one_entry(tmp_path, name, entry):
    root = SOURCES[name].write(tmp_path / "world")
    before = records(name, root)
    edit(root / SOURCES[name].json, lambda content: content[LISTS[name]].append(entry))
    report = make_shards(SOURCES[name].open(root), tmp_path / "shards", split="train")
    assert (report.videos, sum(report.skipped.values())) == (2, 1)
    [error] = map(json.loads, (tmp_path / "shards" / "errors.jsonl").read_text().splitlines())
    assert error["video"] == f"{LISTS[name]}[2]"
    assert str(root / SOURCES[name].json) in error["message"]
    assert [video.video_id for video in before] == [v.video_id for v in ShardSet(tmp_path / "shards").videos]


@pytest.mark.parametrize("entry", [None, 7, "text", [], {}, {"video_id": 1.5}], ids=repr)
def test_an_entry_without_a_video_costs_nothing_else(tmp_path, entry):
    root = SOURCES["vipseg"].write(tmp_path / "world")
    before = records("vipseg", root)
    edit(root / SOURCES["vipseg"].json, lambda content: content["videos"].append(entry))
    report = make_shards(SOURCES["vipseg"].open(root), tmp_path / "shards", split="train")
    assert (report.videos, report.skipped, report.remarks) == (2, {}, {"entries of the json without a video": 1})
    assert records("vipseg", root) == before


@pytest.mark.parametrize("field", ["videos", "annotations"])
def test_a_video_that_is_listed_twice_costs_itself(tmp_path, field):
    root = SOURCES["vipseg"].write(tmp_path / "world")
    edit(root / SOURCES["vipseg"].json, lambda content: content[field].append(content[field][0]))
    report = make_shards(SOURCES["vipseg"].open(root), tmp_path / "shards", split="train")
    assert (report.videos, report.skipped) == (1, {"duplicate-id": 1})


@pytest.mark.parametrize("name", ["youtube_vis", "coco_panoptic", "coco_instance"])
@pytest.mark.parametrize("names", [["/etc/passwd"], ["../../secret/0.jpg"], ["C:\\data\\v\\0.jpg"], [""],
                                   ["a/\0/0.jpg"], ["n" * 300 + "/0.jpg"], ["a/0.jpg", "b/0.jpg"], [7], "v/0.jpg"],
                         ids=repr)
def test_a_file_name_that_is_no_path_inside_the_data_set_costs_its_video(tmp_path, name, names):
    root = SOURCES[name].write(tmp_path / "world")

    def change(content: dict) -> None:
        entry = content[LISTS[name]][0]
        if name == "youtube_vis":
            entry["file_names"] = names
        else:
            entry["file_name"] = names if isinstance(names, list) and len(names) > 1 else names[0]

    edit(root / SOURCES[name].json, change)
    report = make_shards(SOURCES[name].open(root), tmp_path / "shards", split="train")
    assert (report.videos, sum(report.skipped.values())) == (1, 1)


@pytest.mark.parametrize("content", [None, 7, "text", [], {}, {"videos": 3}, {"videos": {}, "images": 7},
                                     {"videos": [], "images": [], "annotations": "x", "categories": "x"}], ids=repr)
@pytest.mark.parametrize("name", JSON_READERS)
def test_a_json_of_something_else_is_refused_before_anything_is_made(tmp_path, name, content):
    root = SOURCES[name].write(tmp_path / "world")
    save(root / SOURCES[name].json, content)
    with pytest.raises((BadInput, ValueError)) as error:
        make_shards(SOURCES[name].open(root), tmp_path / "shards", split="train")
    assert not (tmp_path / "shards" / "manifest.json").exists()
    assert not any(python in str(error.value) for python in ("NoneType", "KeyError", "indices must be", "iterable"))


def test_a_field_with_two_values_is_refused_and_one_that_is_only_repeated_is_read(tmp_path):
    """Python would keep the last value: a whole list of videos would be lost in silence."""
    root = SOURCES["youtube_vis"].write(tmp_path / "world")
    text = (root / "train.json").read_text()
    (root / "train.json").write_text(text.replace("{", '{"info": 1, "info": 1.0, ', 1))
    assert len(SOURCES["youtube_vis"].open(root).video_ids()) == 2
    (root / "train.json").write_text(text.replace("{", '{"videos": [], ', 1))
    with pytest.raises(BadInput, match=r"train\.json.*has the field 'videos' twice, with different values"):
        SOURCES["youtube_vis"].open(root)


def test_a_json_that_is_nested_without_end_is_no_json(tmp_path):
    root = SOURCES["youtube_vis"].write(tmp_path / "world")
    (root / "train.json").write_text("[" * 100_000)
    with pytest.raises(BadInput, match="not valid json"):
        SOURCES["youtube_vis"].open(root)


def test_the_frames_of_all_videos_may_lie_in_one_folder(tmp_path):
    root = SOURCES["youtube_vis"].write(tmp_path / "world")
    before = records("youtube_vis", root)
    for path in (root / "train" / "JPEGImages").glob("*/*.jpg"):
        path.rename(path.parent.parent / f"{path.parent.name}_{path.name}")
    edit(root / "train.json", lambda content: [video.update(
        file_names=[name.replace("/", "_") for name in video["file_names"]]) for video in content["videos"]] and None)
    videos = records("youtube_vis", root)
    assert [video.video_id for video in videos] == ["video_1", "video_2"]
    assert [[frame.masks for frame in video.frames] for video in videos] == [[frame.masks for frame in video.frames]
                                                                            for video in before]


@pytest.mark.parametrize("id", [2**25, 5_229_970_388, 2**62])
@pytest.mark.parametrize("name", ["vipseg", "coco_panoptic"])
def test_a_huge_id_takes_no_memory(tmp_path, name, id):
    root = SOURCES[name].write(tmp_path / "world")

    def change(content: dict) -> None:
        first = content["annotations"][0]
        (first.get("annotations") or [first])[0]["segments_info"][0]["id"] = id

    edit(root / SOURCES[name].json, change)
    report = make_shards(SOURCES[name].open(root), tmp_path / "shards", split="train")
    assert report.skipped == {"bad-id": 1}
    assert str(id) in (tmp_path / "shards" / "errors.jsonl").read_text()
