"""A bad entry of a json costs itself alone: the rest of its video is read as if the entry were not there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.datasets.youtube_vis import NO_OBJECTS, NO_SIZE
from pipeline.errors import BadInput
from pipeline.records import VideoRecord
from pipeline.shards import make_shards
from tests.own_data.renaming import written
from tests.own_data.worlds import SOURCES, edit

FRAMES = 4
VIPSEG = "panoptic_gt_VIPSeg_train.json"
CVAT = "train/train_00000/annotations/instances_default.json"


def read(opened) -> VideoRecord:
    return opened().read(opened().video_ids()[0])


def same_but_for_frame_2(before: VideoRecord, after: VideoRecord) -> BadInput:
    """Frame 2 alone has lost its label; returns its fault."""
    assert after.segments == before.segments
    assert [frame for index, frame in enumerate(after.frames) if index != 2] == [
        frame for index, frame in enumerate(before.frames) if index != 2]
    assert (after.frames[2].label, after.frames[2].masks, after.frames[2].segment_ids) == (None, None, ())
    ((name, fault),) = after.faults.items()
    assert name == after.frames[2].name
    return fault


@pytest.mark.parametrize("field", ["category_id", "iscrowd"])
def test_a_segment_of_vipseg_keeps_the_class_of_most_frames(tmp_path, field):
    root, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    before = read(opened)

    def change(content: dict) -> None:
        frames = content["annotations"][0]["annotations"]
        everywhere = set.intersection(*({row["id"] for row in frame["segments_info"]} for frame in frames))
        row = next(row for row in frames[2]["segments_info"] if row["id"] in everywhere)
        other = next(entry["id"] for entry in content["categories"] if entry["id"] != row["category_id"])
        row[field] = other if field == "category_id" else 1

    edit(root / VIPSEG, change)
    fault = same_but_for_frame_2(before, read(opened))
    assert fault.reason == "inconsistent-id"
    assert "in most frames" in fault.what
    report = make_shards(opened(), tmp_path / "shards", split="train")
    assert (report.videos, report.skipped, len(report.faults)) == (2, {}, 1)


@pytest.mark.parametrize("field", ["category_id", "iscrowd"])
def test_a_track_of_a_coco_video_keeps_the_class_of_most_images(tmp_path, field):
    root, opened = written("coco video", tmp_path / "data", frames=FRAMES)
    before = read(opened)

    def change(content: dict) -> None:
        images = [image["id"] for image in content["images"] if image["video_id"] == 1]
        of_track = {}
        for entry in content["annotations"]:
            of_track.setdefault(entry["instance_id"], {})[entry["image_id"]] = entry
        track = next(track for track in of_track.values() if set(images) <= track.keys())
        track[images[2]][field] = track[images[2]]["category_id"] % 3 + 1 if field == "category_id" else 1

    edit(root / "coco_video.json", change)
    fault = same_but_for_frame_2(before, read(opened))
    assert (fault.reason, fault.file) == ("inconsistent-id", root / "train.json")
    assert "in this image" in fault.what


def test_a_label_of_cvat_without_track_costs_its_frame_the_label(tmp_path):
    root, opened = written("cvat coco", tmp_path / "data", frames=FRAMES)
    before = read(opened)

    def change(content: dict) -> None:
        image = content["images"][2]["id"]
        next(entry for entry in content["annotations"] if entry["image_id"] == image)["attributes"].pop("track_id")

    edit(root / CVAT, change)
    fault = same_but_for_frame_2(before, read(opened))
    assert "has no track_id" in fault.what
    assert "'Track'" in fault.cure


def forget_tracks(content: dict) -> None:
    for entry in content["annotations"]:
        entry["attributes"].pop("track_id")


def test_an_export_without_any_track_is_refused_but_for_a_single_picture(tmp_path):
    root, opened = written("cvat coco", tmp_path / "picture" / "data", frames=1)
    before = read(opened)
    edit(root / CVAT, forget_tracks)
    after = read(opened)
    assert len(after.segments) == len(before.segments) > 1
    assert list(after.frames[0].masks.values()) == list(before.frames[0].masks.values())
    root, opened = written("cvat coco", tmp_path / "film" / "data", frames=FRAMES)
    edit(root / CVAT, forget_tracks)
    with pytest.raises(BadInput, match="has no track_id"):
        read(opened)


def test_an_image_of_cvat_that_is_none_has_no_label(tmp_path):
    root, opened = written("cvat coco", tmp_path / "data", frames=FRAMES)
    before = read(opened)
    gone = []
    edit(root / CVAT, lambda content: gone.append(content["images"].pop()) or content["images"].append(None))
    after = read(opened)
    assert after.remarks["images of the json that cannot be read"] == 1
    assert after.frames[:3] == before.frames[:3]
    assert after.frames[3].masks is None


def break_vipseg(content: dict, value: object) -> None:
    content["videos"][0]["images"][2] = value


@pytest.mark.parametrize("value", [None, 7, [], {}, {"file_name": None}])
def test_an_image_of_vipseg_that_is_none_is_found_in_the_folder(tmp_path, value):
    root, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    before = read(opened)
    edit(root / VIPSEG, lambda content: break_vipseg(content, value))
    after = read(opened)
    (remark,) = (text for text in after.remarks if "cannot be read" in text)
    assert replace(after, remarks={}) == replace(before, remarks={})
    report = make_shards(opened(), tmp_path / "shards", split="train")
    assert (report.videos, report.faults, report.remarks[remark]) == (2, (), 1)


def test_a_picture_that_only_a_broken_image_can_mean_has_no_label_without_annotation(tmp_path):
    root, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    before = read(opened)
    edit(root / VIPSEG, lambda content: break_vipseg(content, None))
    edit(root / VIPSEG, lambda content: content["annotations"][0]["annotations"].pop(2) and None)
    before.frames[2].label.unlink()
    after = read(opened)
    assert [frame.name for frame in after.frames] == [frame.name for frame in before.frames]
    assert (after.frames[2].label, after.frames[2].segment_ids) == (None, ())


@pytest.mark.parametrize("value", [None, "tall", -3, 10**9])
def test_the_size_of_vipseg_may_be_missing_in_some_images_or_all(tmp_path, value):
    root, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    before = read(opened)
    edit(root / VIPSEG, lambda content: content["videos"][0]["images"][1].update(width=value))
    assert sum(read(opened).remarks.values()) == 1
    assert replace(read(opened), remarks={}) == replace(before, remarks={})
    edit(root / VIPSEG, lambda content: [image.pop("height") for image in content["videos"][0]["images"]] and None)
    assert replace(read(opened), remarks={}) == replace(before, remarks={})
    edit(root / VIPSEG, lambda content: [image.update(height=9, width=9) for image in content["videos"][0]["images"]]
         and None)
    with pytest.raises(BadInput, match="9"):
        make_shards(opened(), tmp_path / "shards", split="train", strict=True)


@pytest.mark.parametrize("reader", ["youtube_vis", "coco video"])
def test_a_video_without_a_size_has_that_of_its_pictures(tmp_path, reader):
    root, opened = written(reader, tmp_path / "data", frames=FRAMES)
    before = read(opened)
    path = root / ("train.json" if reader == "youtube_vis" else "coco_video.json")
    listed = "videos" if reader == "youtube_vis" else "images"
    edit(path, lambda content: [entry.pop("height") for entry in content[listed]] and None)
    after = read(opened)
    assert after.remarks == {NO_SIZE: 1}
    assert replace(after, remarks={}) == replace(before, remarks={})


def test_a_json_of_labelme_without_picture_is_counted(tmp_path):
    root, opened = written("labelme", tmp_path / "data", frames=FRAMES)
    before = read(opened)
    folder = root / "train" / "train_00000"
    (folder / "99.json").write_bytes((folder / "0.json").read_bytes())
    after = read(opened)
    assert after.remarks == {"json files without a picture of the same name": 1}
    assert replace(after, remarks={}) == replace(before, remarks={})
    for path in list(folder.glob("?.json")):
        path.rename(path.with_name(f"other_{path.name}"))
    with pytest.raises(BadInput, match="5 json files have no picture"):
        read(opened)


@pytest.mark.parametrize("reader", ["youtube_vis", "coco video", "coco_instance"])
def test_an_empty_list_of_annotations_is_a_set_of_negatives_and_none_is_no_label(tmp_path, reader):
    """Official valid jsons have null, or no such field."""
    source = SOURCES[reader]
    root = source.write(tmp_path / "data", frames=FRAMES)
    counts = {}
    for value in ([], None, "gone"):
        edit(root / source.json, lambda content, value=value: {
            **{name: field for name, field in content.items() if name != "annotations"},
            **({} if value == "gone" else {"annotations": value})})
        dataset = source.open(root)
        videos = [dataset.read(video) for video in dataset.video_ids()]
        assert len(videos) >= 2
        assert all(video.segments == () for video in videos)
        assert {frame.masks is None for video in videos for frame in video.frames} == {value != []}
        counts[str(value)] = dict(dataset.remarks)
    if reader != "coco_instance":
        assert counts == {"[]": {NO_OBJECTS: 2}, "None": {}, "gone": {}}
    report = make_shards(dataset, tmp_path / "shards", split="train")
    assert report.remarks["videos without a label"] == len(videos)


def test_an_empty_export_of_cvat_is_a_video_without_objects(tmp_path):
    root, opened = written("cvat coco", tmp_path / "data", frames=FRAMES)
    edit(root / CVAT, lambda content: content.update(annotations=[]))
    assert [frame.masks for frame in read(opened).frames] == [{}] * FRAMES


def test_negatives_stay_labelled_in_shards(tmp_path):
    root, opened = written("youtube_vis", tmp_path / "data", frames=FRAMES)
    edit(root / "train.json", lambda content: content.update(annotations=[]))
    report = make_shards(opened(), tmp_path / "shards", split="train")
    assert report.remarks == {NO_OBJECTS: 2}




@pytest.mark.parametrize("id", ["x", -1, None, [], 1.5])
def test_a_track_without_an_id_costs_its_frames_the_label(tmp_path, id):
    root, opened = written("youtube_vis", tmp_path / "data", frames=FRAMES)
    before = read(opened)

    def change(content: dict) -> None:
        track = next(track for track in content["annotations"] if track["video_id"] == 1 and track["segmentations"][2])
        content["annotations"].append({**track, "id": id, "segmentations": [
            mask if frame == 2 else None for frame, mask in enumerate(track["segmentations"])]})

    edit(root / "train.json", change)
    assert same_but_for_frame_2(before, read(opened)).reason == "bad-id"


def test_an_annotation_of_a_coco_video_without_mask_and_box_is_counted(tmp_path):
    root, opened = written("coco video", tmp_path / "data", frames=FRAMES)
    edit(root / "coco_video.json", lambda content: content["annotations"][0].update(segmentation=[]))
    assert read(opened).remarks == {"boxes without a mask": 1}


def test_an_annotation_of_a_video_that_vipseg_does_not_list_is_counted(tmp_path):
    root, opened = written("vipseg", tmp_path / "data", frames=FRAMES)
    edit(root / VIPSEG, lambda content: content["annotations"].append({**content["annotations"][0], "video_id": "x"}))
    assert opened().remarks == {"annotations of no listed video": 1}


@pytest.mark.parametrize(("reader", "file", "rows", "field"), [
    ("labelme", "train/train_00000/2.json", "shapes", "label"), ("cvat coco", CVAT, "categories", "name")])
def test_blanks_around_a_label_make_no_other_class(tmp_path, reader, file, rows, field):
    root, opened = written(reader, tmp_path / "data", frames=FRAMES)
    before = read(opened)
    edit(root / file, lambda content: [row.update({field: f"  {row[field]} "}) for row in content[rows]] and None)
    assert read(opened) == before
    assert len(opened().classes.classes) == 3
