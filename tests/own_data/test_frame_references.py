"""A frame that a json names badly, or whose picture is gone or cannot be read, is left out, counted and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import BadInput
from pipeline.faulty_labels import LEFT_OUT, UNREADABLE
from pipeline.records import VideoRecord
from pipeline.shards import ShardSet, make_shards, verify
from tests.own_data.exports import export
from tests.own_data.renaming import written
from tests.own_data.test_exports import opened as opened_export
from tests.own_data.worlds import SOURCES, edit

FRAMES = 4
VIPSEG = "panoptic_gt_VIPSeg_train.json"
CVAT = "train/train_00000/annotations/instances_default.json"
NAMES = [None, 7, [], {}, "", "../2.jpg", "/etc/2.jpg", "other/2.jpg", "train_00000/99.jpg", "\0"]


def first(opened: Callable) -> VideoRecord:
    return opened().read(opened().video_ids()[0])


def without_frame_2(before: VideoRecord, opened: Callable, folder: Path) -> None:
    """Frame 2 alone is left out, shards can be made of the rest, and --strict stops."""
    after = first(opened)
    assert after.segments == before.segments
    assert after.frames == (*before.frames[:2], *before.frames[3:])
    assert after.remarks[LEFT_OUT] == len(after.faults) == 1
    report = make_shards(opened(), folder / "shards", split="train")
    assert (report.videos, report.frames, report.skipped) == (2, 2 * FRAMES - 1, {})
    assert (len(report.faults), report.remarks[LEFT_OUT]) == (1, 1)
    assert [len(video.labelled) for video in ShardSet(folder / "shards").videos] == [FRAMES - 1, FRAMES]
    assert verify(folder / "shards") == []
    with pytest.raises(BadInput) as error:
        make_shards(opened(), folder / "strict", split="train", strict=True)
    assert error.value.cure


def rename_coco_video(content: dict, name: object) -> None:
    next(image for image in content["images"] if (image["video_id"], image["frame_id"]) == (1, 2))["file_name"] = name


def rename_youtube_vis(content: dict, name: object) -> None:
    content["videos"][0]["file_names"][2] = name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("reader", "file", "rename"), [
    ("youtube_vis", "train.json", rename_youtube_vis), ("coco video", "coco_video.json", rename_coco_video)])
def test_a_bad_name_of_a_frame_costs_the_frame(tmp_path, reader, file, rename, name):
    root, opened = written(reader, tmp_path / "data", frames=FRAMES)
    before = first(opened)
    edit(root / file, lambda content: rename(content, name))
    without_frame_2(before, opened, tmp_path)


@pytest.mark.parametrize("reader", ["vipseg", "vspw categories", "kitti_step categories", "davis", "youtube_vis",
                                    "coco video"])
def test_a_frame_without_a_picture_is_left_out(tmp_path, reader):
    _, opened = written(reader, tmp_path / "data", frames=FRAMES)
    before = first(opened)
    before.frames[2].image.unlink()
    without_frame_2(before, opened, tmp_path)


@pytest.mark.parametrize("reader", ["vipseg", "vspw categories", "kitti_step categories", "davis", "youtube_vis",
                                    "coco video", "labelme", "cvat coco"])
@pytest.mark.parametrize("index", [0, 2])
def test_a_picture_that_cannot_be_read_costs_its_frame(tmp_path, reader, index):
    _, opened = written(reader, tmp_path / "data", frames=FRAMES)
    before = first(opened)
    make_shards(opened(), tmp_path / "whole", split="train")
    picture = before.frames[index].image
    picture.write_bytes(picture.read_bytes()[:-9])
    report = make_shards(opened(), tmp_path / "shards", split="train")
    assert (report.videos, report.frames, report.skipped) == (2, 2 * FRAMES - 1, {})
    assert (len(report.faults), report.remarks[LEFT_OUT]) == (1, 1)
    assert str(picture) in report.faults[0]
    whole = ShardSet(tmp_path / "whole")
    shards = ShardSet(tmp_path / "shards")
    kept = [frame for frame in range(FRAMES) if frame != index]
    assert [frame.name for frame in shards.videos[0].frames] == [before.frames[frame].name for frame in kept]
    assert [image for image, _ in shards.read(shards.videos[0], 0, FRAMES - 1)] == \
        [image for frame in kept for image, _ in whole.read(whole.videos[0], frame, frame + 1)]
    assert verify(tmp_path / "shards") == []
    with pytest.raises(BadInput, match="cut off"):
        make_shards(opened(), tmp_path / "strict", split="train", strict=True)


def test_too_many_unreadable_pictures_refuse_the_data_set(tmp_path):
    _, opened = written("vipseg", tmp_path / "data", frames=3)
    for video in opened().video_ids():
        for frame in opened().read(video).frames[1:]:
            frame.image.write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"the pictures of 4 of 6 frames .*shards\.max_bad_fraction=0\.5") as error:
        make_shards(opened(), tmp_path / "shards", split="train")
    assert error.value.reason == "bad-pictures"


def test_damage_inside_a_picture_moves_the_check_to_the_next_one(tmp_path):
    """`shards.decoded_frames` of a video are decoded, whichever are readable."""
    _, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    for frame in first(opened).frames[:2]:
        content = bytearray(frame.image.read_bytes())
        content[-300:-200] = b"\xff\xd0" * 50
        frame.image.write_bytes(content)
    report = make_shards(opened(), tmp_path / "shards", split="train")
    assert (report.videos, report.frames, len(report.faults)) == (2, 2 * FRAMES - 2, 2)


def test_a_video_of_which_every_name_is_bad_is_refused(tmp_path):
    root, opened = written("coco video", tmp_path / "data", frames=FRAMES)
    edit(root / "coco_video.json", lambda content: [image.update(file_name=7) for image in content["images"]
                                                    if image["video_id"] == 1] and None)
    report = make_shards(opened(), tmp_path / "shards", split="train")
    assert (report.videos, report.skipped) == (1, {"bad-json": 1})


def test_a_split_without_labels_needs_every_frame(tmp_path):
    root, opened = written("youtube_vis", tmp_path / "data", frames=FRAMES)
    edit(root / "train.json", lambda content: content.pop("annotations") and None)
    edit(root / "train.json", lambda content: rename_youtube_vis(content, None))
    with pytest.raises(BadInput, match="the file name of frame 2 of video 1 is None"):
        first(opened)


@pytest.mark.parametrize(("change", "lost"), [
    (lambda content: content["images"][2].pop("id") and None, (2,)),
    (lambda content: content["images"][2].update(id=[1]), (2,)),
    (lambda content: content["images"][2].update(id=content["images"][1]["id"]), (1, 2))])
def test_an_image_without_an_id_of_its_own_costs_the_labels_that_may_be_its(tmp_path, change, lost):
    root, opened = written("coco video", tmp_path / "data", frames=FRAMES)
    before = first(opened)
    edit(root / "coco_video.json", change)
    after = first(opened)
    assert [frame.name for frame in after.frames] == [frame.name for frame in before.frames]
    assert [index for index, frame in enumerate(after.frames) if frame.masks is None] == list(lost)
    assert after.remarks[UNREADABLE] == len(lost)


@pytest.mark.parametrize("size", [{"height": "tall"}, {"width": None}, {"height": -3}, {"width": 10**9}])
def test_the_size_of_one_image_of_a_coco_video_costs_nothing(tmp_path, size):
    root, opened = written("coco video", tmp_path / "data", frames=FRAMES)
    before = first(opened)
    edit(root / "coco_video.json", lambda content: content["images"][0].update(size))
    assert first(opened) == before


@pytest.mark.parametrize(("reader", "file", "twice"), [
    ("youtube_vis", "train.json", lambda content: content["videos"][0]["file_names"].__setitem__(
        2, content["videos"][0]["file_names"][1])),
    ("coco video", "coco_video.json", lambda content: rename_coco_video(content, content["images"][1]["file_name"]))])
def test_a_frame_that_is_listed_twice_is_there_once_without_a_label(tmp_path, reader, file, twice):
    root, opened = written(reader, tmp_path / "data", frames=FRAMES)
    before = first(opened)
    edit(root / file, twice)
    after = first(opened)
    assert [frame.name for frame in after.frames] == [before.frames[index].name for index in (0, 1, 3)]
    assert [frame.masks is None for frame in after.frames] == [False, True, False]


def test_what_vipseg_lists_twice_or_has_beside_the_json_is_counted(tmp_path):
    root, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    before = first(opened)
    edit(root / VIPSEG, lambda content: content["videos"][0]["images"].append(content["videos"][0]["images"][1]))
    before.frames[0].image.with_name("9999.jpg").write_bytes(before.frames[0].image.read_bytes())
    after = first(opened)
    assert after.frames == before.frames
    assert after.remarks == {"frames that the json lists twice": 1, "frames that the json does not list": 1}


@pytest.mark.parametrize("value", [None, {}, {"file_name": 7}])
def test_an_annotation_of_vipseg_that_names_no_frame_costs_its_frame_the_label(tmp_path, value):
    root, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    before = first(opened)
    edit(root / VIPSEG, lambda content: content["annotations"][0]["annotations"].__setitem__(2, value))
    after = first(opened)
    assert after.frames[2].label is None
    assert [after.frames[index] for index in (0, 1, 3)] == [before.frames[index] for index in (0, 1, 3)]
    assert after.remarks["annotations that name no frame"] == after.remarks[UNREADABLE] == 1


@pytest.mark.parametrize(("change", "lost"), [
    ({"file_name": 7}, (2,)), ({"file_name": None}, (2,)), ({"file_name": "frame_000001.jpg"}, (1, 2)),
    ({"id": 2}, (1, 2)), ({"id": []}, (2,)), ({"width": 99}, (2,))])
def test_a_faulty_image_of_cvat_costs_the_labels_that_may_be_its(tmp_path, change, lost):
    root, opened = written("cvat coco", tmp_path / "data", frames=FRAMES)
    before = first(opened)
    edit(root / CVAT, lambda content: content["images"][2].update(change))
    after = first(opened)
    assert [frame.name for frame in after.frames] == [frame.name for frame in before.frames]
    assert [index for index, frame in enumerate(after.frames) if frame.masks is None] == list(lost)


def test_a_labelled_image_of_cvat_without_picture_is_left_out(tmp_path):
    _, opened = written("cvat coco", tmp_path / "data", frames=FRAMES)
    before = first(opened)
    before.frames[2].image.unlink()
    without_frame_2(before, opened, tmp_path)


@pytest.fixture
def xml(tmp_path) -> Path:
    """The annotations of the first video, in which the first track is shown in every frame."""
    root = export("cvat", SOURCES["youtube_vis"].write(tmp_path / "world", frames=FRAMES), tmp_path / "cvat")
    return root / "train" / "train_00000" / "annotations.xml"


def read_xml(xml: Path) -> VideoRecord:
    return opened_export("cvat", xml.parents[2]).read("train_00000")


@pytest.mark.parametrize("number", ["", "x", "-1", "1.5", "99999999999999999999"])
def test_a_bad_number_of_a_frame_in_an_xml_costs_the_frame_the_label(xml, number):
    before = read_xml(xml)
    xml.write_text(xml.read_text().replace('frame="2"', f'frame="{number}"', 1))
    after = read_xml(xml)
    assert after.frames[2].masks is None
    assert [after.frames[index] for index in (0, 1, 3)] == [before.frames[index] for index in (0, 1, 3)]


def test_an_xml_frame_without_picture_is_left_out(xml):
    before = read_xml(xml)
    before.frames[2].image.unlink()
    after = read_xml(xml)
    assert after.frames == (*before.frames[:2], before.frames[3])
    assert after.remarks[LEFT_OUT] == 1


def test_a_track_without_a_label_costs_its_frames_the_label(xml):
    xml.write_text(xml.read_text().replace(' label="', ' labels="', 1))
    with pytest.raises(BadInput, match="the label ''"):      # it is shown in all of them
        read_xml(xml)
