"""The COCO readers: class tables, labels of both kinds, an error for each kind of damage, and training batches."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from pipeline.clips import AugmentConfig
from pipeline.datasets import DatasetConfig, open_dataset
from pipeline.datasets.classes_coco import TABLES
from pipeline.datasets.classes_youtube_vis import TABLES as VIDEO_TABLES
from pipeline.datasets.coco import CocoInstance, CocoPanoptic
from pipeline.datasets.coco_as_videos import COUNTERPARTS
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.errors import BadInput
from pipeline.shards import ShardConfig, ShardSet, make_shards
from pipeline.training_input import InputConfig, training_batches

IMAGE = "train_00001"
KINDS = {"panoptic": CocoPanoptic, "instances": CocoInstance}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    config = SyntheticConfig(videos_train=6, videos_val=2, height=64, width=96, layout="coco")
    return write_world(tmp_path_factory.mktemp("stills") / "world", config)


@pytest.fixture
def copy(world, tmp_path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "copy"))


def edit_json(root: Path, kind: str, edit, split: str = "train") -> None:
    path = root / "annotations" / f"{kind}_{split}2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def image_annotations(content: dict) -> list[dict]:
    """The annotations of IMAGE, or its segments."""
    entries = [entry for entry in content["annotations"] if entry["image_id"] == 2]
    return entries[0].get("segments_info", entries)


def test_the_class_tables_are_those_of_every_released_model():
    panoptic = TABLES["coco_panoptic"]
    instance = TABLES["coco_instance"]
    assert panoptic.is_thing.tolist() == [True] * 80 + [False] * 53
    assert panoptic.classes[:80] == instance.classes
    ids = [info.dataset_id for info in panoptic.classes]
    assert ids == sorted(ids)
    assert [(panoptic.classes[index].name, ids[index]) for index in (0, 11, 79, 80, 132)] == [
        ("person", 1), ("stop sign", 13), ("toothbrush", 90), ("banner", 92), ("rug-merged", 200)]
    assert len({info.name for info in panoptic.classes}) == 133 == len({info.color for info in panoptic.classes})


def test_panoptic_and_instance_labels_of_an_image_agree(world):
    """Every thing of the id map is an instance mask of the same class, pixel by pixel, and images differ in size."""
    panoptic = CocoPanoptic(str(world))
    instance = CocoInstance(str(world))
    sizes = set()
    assert panoptic.video_ids() == instance.video_ids() == [f"train_{index:05d}" for index in range(6)]
    for video_id in panoptic.video_ids():
        video = panoptic.read(video_id)
        objects = instance.read(video_id)
        ids = panoptic.frame_ids(video, video.frames[0])
        assert set(np.unique(ids)) == {segment.id for segment in video.segments}    # no pixel of the world is void
        read = {(panoptic.classes.classes[segment.class_index].name, (ids == segment.id).tobytes())
                for segment in video.segments if panoptic.classes.is_thing[segment.class_index]}
        drawn = {(instance.classes.classes[segment.class_index].name,
                  run_lengths.decode(objects.frames[0].masks[segment.id]).tobytes(order="C"))
                 for segment in objects.segments}
        assert read == drawn
        assert (video.height, video.width) == (objects.height, objects.width) == ids.shape
        sizes.add(ids.shape)
    assert len(sizes) > 3


@pytest.mark.parametrize(("kind", "classes"), [("panoptic", 133), ("instances", 80)])
def test_a_json_of_some_coco_categories_gets_the_whole_table_and_any_other_its_own(copy, kind, classes):
    assert len(KINDS[kind](str(copy)).classes) < 10
    edit_json(copy, kind, lambda f: f.update(categories=[{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]))
    assert len(KINDS[kind](str(copy)).classes) == classes
    edit_json(copy, kind, lambda f: f.update(categories=[{"id": 18, "name": "dog"}, {"id": 1, "name": "wolf"}]))
    table = KINDS[kind](str(copy)).classes
    assert [(info.dataset_id, info.name, info.is_thing) for info in table.classes] == [(1, "wolf", True),
                                                                                       (18, "dog", True)]


@pytest.mark.parametrize("form", ["polygons", "uncompressed", "compressed"])
def test_every_form_of_a_mask_reads_the_same(copy, form):
    video = CocoInstance(str(copy)).read(IMAGE)
    two_boxes = np.zeros((video.height, video.width), np.uint8)
    two_boxes[10:20, 5:30] = two_boxes[30:40, 8:12] = 1
    compressed = run_lengths.encode(np.asfortranarray(two_boxes))
    flat = two_boxes.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    size = list(two_boxes.shape)
    mask = {"polygons": [[5, 10, 30, 10, 30, 20, 5, 20], [8, 30, 12, 30, 12, 40, 8, 40]],
            "uncompressed": {"size": size, "counts": np.diff(changes, prepend=0, append=flat.size).tolist()},
            "compressed": {"size": size, "counts": compressed["counts"].decode()}}[form]
    edit_json(copy, "instances", lambda f: image_annotations(f)[0].update(segmentation=mask))
    video = CocoInstance(str(copy)).read(IMAGE)
    assert np.array_equal(run_lengths.decode(video.frames[0].masks[video.segments[0].id]), two_boxes)


def test_masks_may_overlap_be_crowds_and_have_large_ids(copy):
    # ids of COCO's crowds need more than 32 bits
    box = [[2, 2, 40, 2, 40, 30, 2, 30]]
    crowd = 900100000001
    edit_json(copy, "instances", lambda f: image_annotations(f)[0].update(segmentation=box))
    edit_json(copy, "instances", lambda f: image_annotations(f)[1].update(segmentation=box, iscrowd=1, id=crowd))
    video = CocoInstance(str(copy)).read(IMAGE)
    assert [segment.id for segment in video.segments if segment.is_crowd] == [crowd]
    assert video.frames[0].masks[crowd] == video.frames[0].masks[video.segments[0].id]


@pytest.mark.parametrize("nothing", [[], [[3, 3, 4, 3]], [[3.1, 3.1, 3.2, 3.1, 3.2, 3.2]]])
def test_an_object_without_a_pixel_is_left_out(copy, nothing):
    before = CocoInstance(str(copy)).read(IMAGE)
    edit_json(copy, "instances", lambda f: image_annotations(f)[0].update(segmentation=nothing))
    assert CocoInstance(str(copy)).read(IMAGE).segments == before.segments[1:]


@pytest.fixture
def real_categories(copy) -> Path:
    """The world with its objects renamed: on the first image a person and a tie, on the second a tie."""
    def rename(content: dict) -> None:
        content["categories"] = [{"id": 1, "name": "person"}, {"id": 32, "name": "tie"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 32
        next(a for a in content["annotations"] if a["image_id"] == 1)["category_id"] = 1

    edit_json(copy, "instances", rename)
    return copy


@pytest.mark.parametrize(("classes", "person"), [("youtube_vis_2019", 1), ("youtube_vis_2021", 26), ("ovis", 1)])
def test_objects_get_the_classes_of_a_video_data_set_and_images_without_any_are_left_out(real_categories, classes,
                                                                                         person):
    plain = open_dataset(DatasetConfig(name="coco_instance", root=str(real_categories)))
    dataset = open_dataset(DatasetConfig(name="coco_instance", root=str(real_categories), classes=classes))
    assert dataset.classes == VIDEO_TABLES[classes]
    assert pickle.loads(pickle.dumps(dataset)).video_ids() == dataset.video_ids() == plain.video_ids()[:1]
    (image,) = dataset.video_ids()
    (segment,) = dataset.read(image).segments
    assert dataset.classes.classes[segment.class_index].dataset_id == person
    assert len(plain.read(image).segments) > 1
    assert dataset.read(image).frames[0].masks == {segment.id: plain.read(image).frames[0].masks[segment.id]}


@pytest.mark.parametrize("classes", COUNTERPARTS)
def test_counterparts_have_the_same_name_or_are_of_a_kind(classes):
    names = {info.dataset_id: info.name.lower() for info in VIDEO_TABLES[classes].classes}
    coco = {info.dataset_id: info.name.replace(" ", "_") for info in TABLES["coco_instance"].classes}
    assert COUNTERPARTS[classes].keys() <= coco.keys()
    assert set(COUNTERPARTS[classes].values()) <= names.keys()
    renamed = {(coco[id], names[there]) for id, there in COUNTERPARTS[classes].items() if coco[id] != names[there]}
    assert renamed <= {("bicycle", "motorbike"), ("motorcycle", "motorbike"), ("car", "sedan"),
                       ("frisbee", "flying_disc"),
                       ("skis", "snowboard"), ("car", "vehicle"), ("bus", "vehicle"), ("truck", "vehicle")}


def test_a_json_with_categories_of_its_own_has_no_counterparts(world):
    with pytest.raises(ValueError, match=r"categories of its own.*leave dataset\.classes out"):
        CocoInstance(str(world), classes="ovis")


@pytest.mark.parametrize("wrong", [{"name": "coco_panoptic", "classes": "ovis"},
                                   {"name": "coco_instance", "classes": "vspw"}])
def test_impossible_classes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"dataset\.classes=.* is for coco_instance only, one of youtube_vis_2019"):
        DatasetConfig(root="data", **wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_without_annotations_has_images_and_no_segments(copy, kind):
    edit_json(copy, kind, lambda f: f.pop("annotations"), "val")
    (copy / "val2017").rename(copy / "test2017")
    (copy / "annotations" / f"{kind}_val2017.json").rename(copy / "annotations" / "image_info_test2017.json")
    dataset = KINDS[kind](str(copy), split="test")
    video = dataset.read(dataset.video_ids()[0])
    assert (video.segments, video.frames[0].label, video.frames[0].masks) == ((), None, None)


def test_an_image_without_objects_is_labelled_and_empty(copy):
    edit_json(copy, "instances",
              lambda f: f.update(annotations=[entry for entry in f["annotations"] if entry["image_id"] != 2]))
    assert CocoInstance(str(copy)).read(IMAGE).frames[0].masks == {}


@pytest.mark.parametrize("name", TABLES)
def test_a_pickled_reader_reads_the_same(world, name):
    dataset = open_dataset(DatasetConfig(name=name, root=str(world), split="val"))
    again = pickle.loads(pickle.dumps(dataset))
    assert again.read("val_00001") == dataset.read("val_00001")
    assert len(pickle.dumps(dataset)) < 1000


DAMAGE = {
    "bad-id": [("both", lambda f: image_annotations(f)[0].update(id=-1)),
               ("both", lambda f: image_annotations(f)[0].update(id=image_annotations(f)[1]["id"]))],
    "unknown-category": [("both", lambda f: image_annotations(f)[0].update(category_id=99))],
    "size-differs": [
        ("instances", lambda f: image_annotations(f)[0].update(segmentation={"size": [3, 3], "counts": [9]})),
        ("instances", lambda f: image_annotations(f)[0].update(
            segmentation={"size": [f["images"][1]["height"], f["images"][1]["width"]], "counts": [3, 4]}))],
    "missing-image": [("both", lambda f: f["images"][1].update(file_name=f"elsewhere/{IMAGE}.jpg"))],
    "missing-label": [("panoptic", lambda f: f["annotations"][1].update(file_name="99.png"))],
    "duplicate-id": [("both", lambda f: f["images"][0].update(id=2)),
                     ("both", lambda f: f["images"].append({**f["images"][1], "id": 9})),
                     ("panoptic", lambda f: f["annotations"].append(f["annotations"][1]))],
    "orphan-annotation": [("both", lambda f: [entry.update(image_id=77) for entry in f["annotations"]])],
    "not-in-json": [("both", lambda f: f["images"][1].update(file_name="other.jpg"))],
    "bad-json": [("both", lambda f: f["images"][1].pop("height")), ("both", lambda f: f.pop("images")),
                 ("both", lambda f: image_annotations(f)[0].pop("id")),
                 ("both", lambda f: image_annotations(f)[0].pop("category_id")),
                 ("instances", lambda f: (image_annotations(f)[0].pop("segmentation"),
                                          image_annotations(f)[0].pop("bbox", None))),
                 ("both", lambda f: f["categories"][0].pop("name"))],
}


@pytest.mark.parametrize(("reason", "kind", "damage"), [
    (reason, kind, damage) for reason, all_of in DAMAGE.items() for kinds, damage in all_of
    for kind in (KINDS if kinds == "both" else [kinds])])
def test_each_kind_of_damage_has_its_own_error(copy, reason, kind, damage):
    edit_json(copy, kind, damage)
    with pytest.raises(BadInput) as error:
        KINDS[kind](str(copy)).read(IMAGE)
    assert error.value.reason == reason
    assert error.value.file
    assert error.value.cure


def test_a_label_of_another_size_or_coding_is_refused(copy):
    dataset = CocoPanoptic(str(copy))
    label = copy / "panoptic_train2017" / f"{IMAGE}.png"
    video = dataset.read(IMAGE)
    for other, reason in (("train_00000", "size-differs"), (None, "corrupt-label")):
        label.write_bytes((label.parent / f"{other}.png").read_bytes() if other else b"no png")
        with pytest.raises(BadInput) as error:
            dataset.frame_ids(video, video.frames[0])
        assert error.value.reason == reason


def test_a_missing_folder_is_named(world):
    with pytest.raises(FileNotFoundError, match=r"panoptic_test2017\.json"):
        CocoPanoptic(str(world), split="test")


@pytest.mark.parametrize("name", TABLES)
def test_stills_of_differing_size_become_batches_with_pasted_objects(world, tmp_path, name):
    dataset = open_dataset(DatasetConfig(name=name, root=str(world)))
    make_shards(dataset, tmp_path / "shards", ShardConfig(clip_frames=1), split="train")
    shards = ShardSet(tmp_path / "shards")
    config = InputConfig(augment=AugmentConfig(size=(65, 97), scale=(0.5, 2.0)), clip_frames=1, batch_size=2, workers=0)
    assert len({(video.height, video.width) for video in shards.videos}) > 3
    alone = islice(training_batches(shards, replace(config, copy_paste=None)), 12)
    found = list(islice(training_batches(shards, config), 12))
    assert objects_in(found) > 1.3 * objects_in(alone)
    for batch in found:
        assert batch.frames.shape == (2, 1, 3, 65, 97)
        assert not batch.frames[~batch.real_pixels[:, :, None].expand_as(batch.frames)].any()
        for real, targets in zip(batch.real_pixels, batch.targets):
            assert not (targets.masks.any(0) & ~real[:, ::4, ::4]).any()       # nothing is labelled in the padding
            assert (targets.masks.any(0) != targets.void).all()
            assert len(set(targets.track_ids.tolist())) == len(targets.classes)


def objects_in(batches) -> int:
    return sum(len(targets.classes) for batch in batches for targets in batch.targets)


def test_a_crowd_is_void_in_training(copy, tmp_path):
    def all_but_one(content: dict) -> None:
        for segment in [segment for entry in content["annotations"] for segment in entry["segments_info"][1:]]:
            segment["iscrowd"] = 1

    edit_json(copy, "panoptic", all_but_one)
    make_shards(CocoPanoptic(str(copy)), tmp_path / "shards", ShardConfig(clip_frames=1), split="train")
    config = InputConfig(augment=AugmentConfig(size=(65, 97), scale=(1, 1)), clip_frames=1, batch_size=6, workers=0,
                         copy_paste=None)
    batch = next(training_batches(ShardSet(tmp_path / "shards"), config))
    for targets in batch.targets:
        assert len(targets.classes) == 1
        assert targets.void.any()
