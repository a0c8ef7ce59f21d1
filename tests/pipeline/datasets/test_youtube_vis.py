"""The YouTube-VIS reader: class tables, masks, real videos, and an error for each kind of damage."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from pipeline.datasets.classes_youtube_vis import TABLES
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.errors import BadInput
from tests.faults import error_of

VIDEO = "train_00001"


def edit_json(root, edit, split: str = "train") -> None:
    path = root / f"{split}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def video_annotations(content: dict) -> list[dict]:
    """The annotations of VIDEO."""
    return [entry for entry in content["annotations"] if entry["video_id"] == 2]


def set_first_mask(content: dict, size: list[int], counts: list[int] | str) -> None:
    video_annotations(content)[0]["segmentations"][0] = {"size": size, "counts": counts}


def test_the_class_tables_are_those_of_the_years():
    for table in TABLES.values():
        assert [info.dataset_id for info in table.classes] == list(range(1, (25 if table.name == "ovis" else 40) + 1))
        assert len({info.name for info in table.classes}) == len(table) == len({info.color for info in table.classes})
        assert table.is_thing.all()
    name = {year: [info.name for info in TABLES[f"youtube_vis_{year}"].classes] for year in (2019, 2021, 2022)}
    assert name[2021] == sorted(name[2021]) == name[2022]
    assert set(name[2021]) - set(name[2019]) == {"bird", "car", "flying_disc", "squirrel", "whale"}
    assert set(name[2019]) - set(name[2021]) == {"ape", "eagle", "hand", "owl", "sedan"}
    assert (name[2019][0], name[2019][39]) == ("person", "tennis_racket")


def test_masks_come_back_as_drawn(instance_world):
    dataset = YouTubeVis(str(instance_world))
    content = json.loads((instance_world / "train.json").read_text())
    video = dataset.read(VIDEO)
    assert [info.name for info in dataset.classes.classes] == ["disc", "square", "triangle"]
    for entry in video_annotations(content):
        for frame, stored in zip(video.frames, entry["segmentations"], strict=True):
            if stored is None:
                assert entry["id"] not in frame.masks
            else:
                flat = np.repeat(np.arange(len(stored["counts"])) % 2, stored["counts"])
                drawn = flat.reshape(stored["size"], order="F")
                assert np.array_equal(run_lengths.decode(frame.masks[entry["id"]]), drawn)
    assert any(None in entry["segmentations"] for entry in video_annotations(content))


@pytest.mark.parametrize("form", ["uncompressed", "compressed", "polygon"])
def test_every_form_of_a_mask_reads_the_same(instance_copy, form):
    box = np.zeros((48, 64), np.uint8)
    box[10:20, 5:30] = 1
    compressed = run_lengths.encode(np.asfortranarray(box))
    flat = box.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    mask = {"uncompressed": {"size": [48, 64], "counts": np.diff(changes, prepend=0, append=flat.size).tolist()},
            "compressed": {"size": [48, 64], "counts": compressed["counts"].decode()},
            "polygon": [[5, 10, 30, 10, 30, 20, 5, 20]]}[form]
    edit_json(instance_copy, lambda f: video_annotations(f)[0].update(segmentations=[mask] + [None] * 11))
    video = YouTubeVis(str(instance_copy)).read(VIDEO)
    assert np.array_equal(run_lengths.decode(video.frames[0].masks[video.segments[0].id]), box)


def test_a_split_without_annotations_has_frames_and_no_segments(instance_copy):
    edit_json(instance_copy, lambda f: f.pop("annotations"), "valid")
    video = YouTubeVis(str(instance_copy), split="valid").read("valid_00000")
    assert len(video.frames) == 12
    assert video.segments == ()
    assert {frame.masks for frame in video.frames} == {None}


def test_a_video_without_objects_in_a_labelled_split_is_labelled_and_empty(instance_copy):
    edit_json(instance_copy, lambda f: f.update(annotations=[e for e in f["annotations"] if e["video_id"] != 2]))
    video = YouTubeVis(str(instance_copy)).read(VIDEO)
    assert video.segments == ()
    assert [frame.masks for frame in video.frames] == [{}] * 12


@pytest.mark.parametrize("layout", ["train/instances.json", "annotations/train.json", "annotations_train.json",
                                    "annotations/instances_train.json", "annotations/annotations_train.json"])
def test_the_json_is_found_in_every_layout(instance_copy, layout):
    expected = YouTubeVis(str(instance_copy)).read(VIDEO)
    (instance_copy / layout).parent.mkdir(exist_ok=True)
    (instance_copy / "train.json").rename(instance_copy / layout)
    assert YouTubeVis(str(instance_copy)).read(VIDEO) == expected


@pytest.fixture(scope="module")
def ovis_world(tmp_path_factory):
    config = SyntheticConfig(videos_train=3, videos_val=1, frames=12, height=48, width=64, layout="ovis")
    return write_world(tmp_path_factory.mktemp("ovis") / "world", config)


def test_ovis_is_read_with_masks_that_overlap(ovis_world):
    dataset = YouTubeVis(str(ovis_world))
    shared = 0
    assert dataset.annotations == ovis_world / "annotations" / "train.json"
    for video_id in dataset.video_ids():
        video = dataset.read(video_id)
        assert video.frames[0].image.parent == ovis_world / "train" / video_id
        for frame in video.frames:
            masks = [run_lengths.decode(mask) for mask in frame.masks.values()]
            shared += int((sum(masks) > 1).sum()) if masks else 0
    assert shared > 0


def test_ovis_has_its_own_class_table_whatever_the_spelling(ovis_world, tmp_path):
    root = Path(shutil.copytree(ovis_world, tmp_path / "copy"))
    with pytest.raises(ValueError, match="in ovis it is 'Person'"):
        YouTubeVis(str(root), name="ovis")
    names = [info.name for info in TABLES["ovis"].classes]
    assert (len(names), names[0], names[24]) == (25, "Person", "Vehicle")
    rows = [{"id": id, "name": name} for id, name in enumerate([*names[:24], "Vehical"], 1)]
    edit_json(root / "annotations", lambda f: f.update(categories=rows))
    assert YouTubeVis(str(root), name="ovis").classes == TABLES["ovis"]
    assert YouTubeVis(str(root)).classes.classes[24].name == "Vehical"


def test_crowd_tracks_keep_their_flag(instance_copy):
    edit_json(instance_copy, lambda f: video_annotations(f)[0].update(iscrowd=1))
    assert [segment.is_crowd for segment in YouTubeVis(str(instance_copy)).read(VIDEO).segments][:2] == [True, False]


def test_a_pickled_reader_reads_the_same(instance_world):
    dataset = YouTubeVis(str(instance_world))
    assert pickle.loads(pickle.dumps(dataset)).read(VIDEO) == dataset.read(VIDEO)
    assert len(pickle.dumps(dataset)) < 1000


@pytest.mark.parametrize("masks", [[None] * 12, [{"size": [48, 64], "counts": [3072]}] + [None] * 11])
def test_a_track_without_any_pixel_is_left_out_and_counted(instance_copy, masks):
    before = YouTubeVis(str(instance_copy)).read(VIDEO)
    edit_json(instance_copy, lambda f: video_annotations(f)[0].update(segmentations=masks))
    video = YouTubeVis(str(instance_copy)).read(VIDEO)
    assert video.segments == before.segments[1:]
    assert video.remarks["objects without a pixel"] == 1


def test_a_track_of_no_listed_video_is_left_out_and_counted(instance_copy):
    edit_json(instance_copy, lambda f: f["annotations"][0].update(video_id=77))
    dataset = YouTubeVis(str(instance_copy))
    assert dataset.read(VIDEO).segments
    assert dataset.remarks == {"annotations of no listed video": 1}


DAMAGE = {
    "bad-id": [lambda f: video_annotations(f)[0].update(id=-1), lambda f: video_annotations(f)[0].pop("id"),
               lambda f: video_annotations(f)[0].update(id=video_annotations(f)[1]["id"])],
    "unknown-category": [lambda f: video_annotations(f)[0].update(category_id=41)],
    "frame-mismatch": [lambda f: video_annotations(f)[0]["segmentations"].pop()],
    "missing-image": [lambda f: f["videos"][1]["file_names"].__setitem__(3, f"{VIDEO}/99.jpg")],
    "duplicate-id": [lambda f: f["videos"][0].update(id=2), lambda f: f["videos"].append({**f["videos"][1], "id": 9}),
                     lambda f: f["categories"].append({"id": 1, "name": "wolf"})],
    "orphan-annotation": [lambda f: [entry.update(video_id=77) for entry in f["annotations"]]],
    "bad-json": [lambda f: f["videos"][1].update(height="tall"), lambda f: video_annotations(f)[0].pop("segmentations"),
                 lambda f: f.pop("videos"), lambda f: f["categories"][0].pop("name")],
    "not-in-json": [lambda f: (f["videos"].pop(), video_annotations(f) and f.update(annotations=[]))],
}


@pytest.mark.parametrize(("reason", "damage"), [(reason, damage) for reason, all_of in DAMAGE.items()
                                                for damage in all_of])
def test_each_kind_of_damage_has_its_own_error(instance_copy, reason, damage):
    edit_json(instance_copy, damage)
    error = error_of(lambda: YouTubeVis(str(instance_copy)).read(VIDEO))
    assert error.reason == reason
    assert error.file
    assert error.cure


@pytest.mark.parametrize(("size", "counts"), [([48, 65], [3120]), ([48, 64], [3, 4]), ([48, 64], [3080, -9, 1]),
                                             ([48, 64], "04")])
def test_a_mask_that_does_not_fit_costs_its_frame_the_label(instance_copy, size, counts):
    before = YouTubeVis(str(instance_copy)).read(VIDEO)
    edit_json(instance_copy, lambda f: set_first_mask(f, size, counts))
    video = YouTubeVis(str(instance_copy)).read(VIDEO)
    assert video.frames[0].masks is None
    assert video.frames[1:] == before.frames[1:]
    (fault,) = video.faults.values()
    assert fault.reason == "size-differs"
    assert fault.file
    assert fault.cure


def test_a_video_without_frames_is_listed_and_refused(instance_copy):
    edit_json(instance_copy, lambda f: f["videos"].append({"id": 5, "file_names": [], "height": 48, "width": 64}))
    dataset = YouTubeVis(str(instance_copy))
    assert dataset.video_ids() == ["train_00000", "train_00001", "video_5"]
    with pytest.raises(BadInput) as error:
        dataset.read("video_5")
    assert error.value.reason == "empty-video"


def test_a_missing_split_is_named_and_never_replaced(real_data, instance_world):
    with pytest.raises(FileNotFoundError, match=r"test\.json"):
        YouTubeVis(str(instance_world), split="test")
    with pytest.raises(FileNotFoundError, match=r"test\.json"):     # instances.json beside it is the training split
        YouTubeVis(str(real_data / "real_vis"), split="test")


def test_another_year_is_refused_by_its_names(real_data):
    with pytest.raises(ValueError, match="'person', but in youtube_vis_2021 it is 'airplane'"):
        YouTubeVis(str(real_data / "real_vis"), name="youtube_vis_2021")


def test_real_videos_read(real_data):
    dataset = YouTubeVis(str(real_data / "real_vis"), name="youtube_vis_2019")
    content = json.loads((real_data / "real_vis" / "instances.json").read_text())
    areas = {entry["id"]: entry["areas"] for entry in content["annotations"]}
    frames = 0
    for video_id in dataset.video_ids():
        video = dataset.read(video_id)
        frames += len(video.frames)
        for segment in video.segments:
            read = [int(run_lengths.area(frame.masks[segment.id])) if segment.id in frame.masks else None
                    for frame in video.frames]
            assert read == areas[segment.id]
    assert frames == 130
    assert YouTubeVis(str(real_data / "real_vis"), split="valid").read("davis_cows").segments == ()
