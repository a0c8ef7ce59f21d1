"""The VIPSeg reader: both layouts agree, real videos can be read, and each kind of damage has its own error."""

from __future__ import annotations

import json
import pickle
import shutil
from operator import attrgetter

import numpy as np
import pytest

from pipeline.datasets.classes_vipseg import TABLE
from pipeline.datasets.vipseg import VipSeg
from pipeline.errors import BadInput
from pipeline.images import encode_png
from tests.faults import error_of

VIDEO = "train_00001"
TRAIN = "panoptic_gt_VIPSeg_train.json"


def canonical(dataset: VipSeg, video_id: str) -> tuple[np.ndarray, list[int]]:
    """Maps of a video with ids renumbered in the order they appear, and the class of each."""
    video = dataset.read(video_id)
    maps = np.stack([dataset.frame_ids(video, frame) for frame in video.frames])
    values, first = np.unique(maps, return_index=True)
    order = values[np.argsort(first)]
    class_of = {segment.id: segment.class_index for segment in video.segments}
    rank = np.argsort(order)
    return rank[np.searchsorted(order[rank], maps)], [class_of.get(int(value), -1) for value in order]


def test_both_layouts_describe_the_same_videos(panoptic_world):
    rgb = VipSeg(str(panoptic_world))
    raw = VipSeg(str(panoptic_world), layout="raw")
    assert (rgb.layout, raw.layout) == ("rgb", "raw")
    for video_id in rgb.video_ids():
        (maps, classes) = canonical(rgb, video_id)
        (raw_maps, raw_classes) = canonical(raw, video_id)
        assert np.array_equal(maps, raw_maps)
        assert classes == raw_classes


def test_the_release_reads_without_any_json(panoptic_copy):
    for path in [*panoptic_copy.glob("panoptic_gt*"), panoptic_copy / "panomasksRGB"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (panoptic_copy / "images").rename(panoptic_copy / "imgs")
    dataset = VipSeg(str(panoptic_copy))
    assert dataset.layout == "raw"
    assert len(dataset.read(VIDEO).frames) == 4


def test_a_split_without_list_takes_its_json(panoptic_copy):
    listed = VipSeg(str(panoptic_copy)).video_ids()
    (panoptic_copy / "train.txt").unlink()
    for layout in ("rgb", "raw"):
        assert VipSeg(str(panoptic_copy), layout=layout).video_ids() == listed == ["train_00000", "train_00001"]


def test_a_pickled_reader_reads_the_same(panoptic_world):
    dataset = VipSeg(str(panoptic_world), split="val")
    dataset.read("val_00000")
    assert len(pickle.dumps(dataset)) < 1000      # the json is not pickled
    assert pickle.loads(pickle.dumps(dataset)).read("val_00000") == dataset.read("val_00000")


def test_a_missing_folder_or_split_is_named(panoptic_copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        VipSeg(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"test\.txt"):
        VipSeg(str(panoptic_copy), split="test")
    shutil.rmtree(panoptic_copy / "images")
    with pytest.raises(FileNotFoundError, match="folder of frames"):
        VipSeg(str(panoptic_copy))


def test_crowd_segments_keep_their_flag(panoptic_copy):
    def mark(content):
        for frame in content["annotations"][1]["annotations"]:
            for info in frame["segments_info"]:
                info["iscrowd"] = 1
    edit_json(panoptic_copy, mark)
    assert all(segment.is_crowd for segment in VipSeg(str(panoptic_copy)).read(VIDEO).segments)


def test_segments_come_in_the_order_of_the_json(panoptic_copy):
    """Those of the first frame come first, whatever their ids, and every segment comes once."""
    before = VipSeg(str(panoptic_copy)).read(VIDEO).segments
    edit_json(panoptic_copy, lambda content: first_segments(content).sort(key=lambda info: -info["id"]))
    listed = [info["id"] for info in first_segments(json.loads((panoptic_copy / TRAIN).read_text()))]
    after = VipSeg(str(panoptic_copy)).read(VIDEO).segments
    assert len(listed) > 1
    assert [segment.id for segment in after][:len(listed)] == sorted(listed, reverse=True)
    assert sorted(after, key=attrgetter("id")) == sorted(before, key=attrgetter("id"))


def edit_json(root, edit) -> None:
    path = root / TRAIN
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def first_segments(content: dict) -> list[dict]:
    return content["annotations"][1]["annotations"][0]["segments_info"]


DAMAGE = {     # reason -> ways in which a user's folder may be damaged
    "missing-label": [lambda root: (root / "panomasksRGB" / VIDEO / "00000015.png").unlink(),
                      lambda root: shutil.rmtree(root / "panomasksRGB" / VIDEO)],
    "missing-image": [lambda root: (root / "images" / VIDEO / "00000015.jpg").unlink(),
                      lambda root: shutil.rmtree(root / "images" / VIDEO)],
    "frame-mismatch": [lambda root: (root / "panomasksRGB" / VIDEO / "extra.png").write_bytes(b""),
                       lambda root: (root / "images" / VIDEO / "00000015.png").write_bytes(b""),
                       lambda root: edit_json(root, lambda f: f["annotations"][1]["annotations"].pop())],
    "not-in-json": [lambda root: edit_json(root, lambda f: f["videos"].pop())],
    "empty-video": [lambda root: edit_json(root, lambda f: f["videos"][1].update(images=[]))],
    "unknown-category": [lambda root: edit_json(root, lambda f: first_segments(f)[0].update(category_id=99))],
    "inconsistent-id": [lambda root: edit_json(root, lambda f: first_segments(f)[0].update(category_id=6))],
    "bad-id": [lambda root: edit_json(root, lambda f: first_segments(f)[0].update(id=0)),
               lambda root: edit_json(root, lambda f: first_segments(f).append(first_segments(f)[0]))],
    "size-differs": [lambda root: edit_json(root, lambda f: f["videos"][1]["images"][2].update(width=65))],
    "bad-json": [lambda root: edit_json(root, lambda f: first_segments(f)[0].pop("id")),
                 lambda root: edit_json(root, lambda f: f["videos"][1].pop("images")),
                 lambda root: edit_json(root, lambda f: f.pop("videos")),
                 lambda root: (root / "panoptic_gt_VIPSeg_train.json").write_text('{"videos": [')],
}


@pytest.mark.parametrize(("reason", "damage"), [(reason, damage) for reason, all_of in DAMAGE.items()
                                                for damage in all_of])
def test_each_kind_of_damage_has_its_own_error(panoptic_copy, reason, damage):
    damage(panoptic_copy)
    error = error_of(lambda: VipSeg(str(panoptic_copy)).read(VIDEO))
    assert error.reason == reason
    assert error.file
    assert error.cure


def test_damage_of_one_video_leaves_the_others(panoptic_copy):
    shutil.rmtree(panoptic_copy / "images" / VIDEO)
    assert len(VipSeg(str(panoptic_copy)).read("train_00000").frames) == 4


def test_a_folder_that_may_not_be_read_is_named(panoptic_world, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")
    dataset = VipSeg(str(panoptic_world))
    monkeypatch.setattr("pipeline.datasets.folders.os.listdir", refuse)
    with pytest.raises(BadInput, match="Permission denied") as error:
        dataset.read(VIDEO)
    assert error.value.reason == "unreadable"


def test_labels_of_another_size_or_coding_are_refused(panoptic_copy):
    dataset = VipSeg(str(panoptic_copy))
    video = dataset.read(VIDEO)
    label = video.frames[1].label
    for pixels, reason in ((np.zeros((48, 63, 3), np.uint8), "size-differs"),
                           (np.zeros((48, 64), np.uint8), "corrupt-label")):
        label.write_bytes(encode_png(pixels))
        with pytest.raises(BadInput, match=label.name) as error:
            dataset.frame_ids(video, video.frames[1])
        assert error.value.reason == reason


def test_a_raw_value_without_class_costs_its_frame_the_label(panoptic_copy):
    (panoptic_copy / "panomasks" / VIDEO / "00000015.png").write_bytes(encode_png(np.full((48, 64), 999, np.uint16)))
    video = VipSeg(str(panoptic_copy), layout="raw").read(VIDEO)
    assert [frame.label is None for frame in video.frames].count(True) == 1
    (fault,) = video.faults.values()
    assert fault.reason == "unknown-category"
    assert "999" in fault.what


@pytest.mark.parametrize("layout", ["rgb", "raw"])
@pytest.mark.parametrize("split", ["train", "val", "partial"])
def test_real_videos_read_and_agree_with_their_annotation(real_data, split, layout):
    dataset = VipSeg(str(real_data / "real_vps"), split=split, layout=layout)
    counts = {"12_1mWNahzcsAc": (4, 8), "camvid_0016E5": (34, 27), "table_walk_a": (43, 7),
              "1001_3iEIq5HBY1s": (15, 44)}
    assert dataset.classes == TABLE         # lets a converted checkpoint be scored on shards of the data set
    for video_id in dataset.video_ids():
        video = dataset.read(video_id)
        assert (len(video.frames), len(video.segments)) == counts[video_id]
        for frame in video.frames[::5]:
            drawn = set(np.unique(dataset.frame_ids(video, frame)).tolist()) - {0}
            assert drawn == set(frame.segment_ids)
    if split == "partial":
        assert [bool(frame.segment_ids) for frame in video.frames] == [True] + [False] * 14


@pytest.mark.parametrize("video_id", ["12_1mWNahzcsAc", "table_walk_a"])
def test_both_codings_of_real_labels_agree(real_data, video_id):
    split = "val" if video_id.startswith("12") else "train"
    (maps, classes), (raw_maps, raw_classes) = (
        canonical(VipSeg(str(real_data / "real_vps"), split=split, layout=layout), video_id)
        for layout in ("rgb", "raw"))
    assert np.array_equal(maps, raw_maps)
    assert classes == raw_classes
