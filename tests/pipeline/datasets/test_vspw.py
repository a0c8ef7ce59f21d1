"""The VSPW reader: classes, one segment per class, the ignored values, splits without masks, each kind of damage."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.classes_vspw import TABLE
from pipeline.datasets.synthetic import SyntheticConfig, world_classes, write_world
from pipeline.datasets.synthetic_drawing import draw
from pipeline.datasets.synthetic_scene import make_scene
from pipeline.datasets.synthetic_things import STUFF
from pipeline.datasets.vspw import Vspw
from pipeline.errors import BadInput
from pipeline.images import decode_png, encode_png
from pipeline.shards import ShardConfig, ShardSet, make_shards
from pipeline.shards.encode import encode_video
from tests.faults import error_of

CONFIG = SyntheticConfig(videos_train=2, videos_val=1, frames=4, height=48, width=64, layout="vspw")
VIDEO = "train_00001"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("vspw") / "world", CONFIG)


@pytest.fixture
def copy(world, tmp_path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "copy"))


def mask_of(root: Path, frame: int = 2) -> Path:
    return sorted((root / "data" / VIDEO / "mask").iterdir())[frame]


def test_the_classes_are_those_of_vipseg(real_data):
    rows = json.loads((real_data / "real_vps" / "panoVIPSeg_categories.json").read_text())
    assert [(info.dataset_id, info.name) for info in TABLE.classes] == [(row["id"], row["name"]) for row in rows]


def test_the_table_has_124_classes_without_objects():
    assert (len(TABLE), TABLE.classes[0].name, TABLE.classes[123].name) == (124, "wall", "train")
    assert len({info.color for info in TABLE.classes}) == len({info.name for info in TABLE.classes}) == 124
    assert not TABLE.is_thing.any()


def test_shards_hold_the_drawn_classes(world, tmp_path):
    """Every pixel of every frame has the class with which it was drawn."""
    dataset = Vspw(str(world))
    classes = world_classes(CONFIG)
    make_shards(dataset, tmp_path / "shards", split="train")
    shards = ShardSet(tmp_path / "shards")
    position = {info.name: index for index, info in enumerate(classes.classes)}
    for video in shards.videos:
        scene = make_scene(CONFIG, np.random.default_rng([CONFIG.seed, 0, video.index]))
        kinds = [*STUFF, *(thing.kind for thing in scene.things)]
        truth = shards.truth_semantic(video)
        for classes_of_pixels, (_, label) in zip(truth.frames, draw(scene), strict=True):
            assert np.array_equal(classes_of_pixels, np.array([position.get(kind, -9) for kind in kinds])[label])
        indices = [segment.class_index for segment in video.segments]
        assert len(set(indices)) == len(indices)                # one segment per class
        assert {segment.track for segment in shards.truth(video).segments.values()} == {0}


def test_void_and_ignored_values_have_no_class(copy):
    mask = decode_png(mask_of(copy).read_bytes())
    mask[:5, :4] = [0, 253, 254, 255]
    mask_of(copy).write_bytes(encode_png(mask))
    dataset = Vspw(str(copy))
    video = dataset.read(VIDEO)
    ids = dataset.frame_ids(video, video.frames[2])
    assert not ids[:5, :4].any()
    assert np.array_equal(ids[5:], mask[5:])
    assert 0 not in video.frames[2].segment_ids


def test_without_a_category_file_the_124_classes_count(copy):
    (copy / "categories.json").unlink()
    dataset = Vspw(str(copy))
    assert dataset.classes == TABLE
    video = dataset.read(VIDEO)
    assert {segment.class_index for segment in video.segments} == \
        {index for frame in range(4) for index in np.unique(decode_png(mask_of(copy, frame).read_bytes())) - 1}


def test_a_test_split_has_frames_and_no_labels(copy):
    (copy / "train.txt").rename(copy / "test.txt")
    shutil.rmtree(copy / "data" / VIDEO / "mask")
    video = Vspw(str(copy), split="test").read(VIDEO)
    assert (video.height, video.width, video.segments) == (48, 64, ())
    assert [(frame.label, frame.masks) for frame in video.frames] == [(None, None)] * 4
    image = copy / "data" / VIDEO / "origin" / f"{video.frames[0].name}.jpg"
    image.write_bytes(image.read_bytes()[:-20])
    with pytest.raises(BadInput, match="cut off") as error:
        encode_video(Vspw(str(copy), split="test"), VIDEO, ShardConfig())
    assert error.value.reason == "corrupt-image"


def test_a_pickled_reader_reads_the_same(world):
    dataset = Vspw(str(world), split="val")
    assert pickle.loads(pickle.dumps(dataset)).read("val_00000") == dataset.read("val_00000")


DAMAGE = {
    "missing-image": [lambda root: shutil.rmtree(root / "data" / VIDEO / "origin"),
                      lambda root: next((root / "data" / VIDEO / "origin").iterdir()).unlink()],
    "corrupt-label": [lambda root: mask_of(root).write_bytes(mask_of(root).read_bytes()[:-9]),
                      lambda root: mask_of(root).write_bytes(encode_png(np.zeros((48, 64, 3), np.uint8)))],
    "unknown-category": [lambda root: mask_of(root).write_bytes(encode_png(np.full((48, 64), 125, np.uint8)))],
    "size-differs": [lambda root: mask_of(root).write_bytes(encode_png(np.ones((48, 65), np.uint8)))],
    "empty-video": [lambda root: [path.unlink() for path in (root / "data" / VIDEO).rglob("*.*")]],
}


@pytest.mark.parametrize(("reason", "damage"), [(reason, damage) for reason, all_of in DAMAGE.items()
                                                for damage in all_of])
def test_each_kind_of_damage_has_its_own_error(copy, reason, damage):
    damage(copy)
    error = error_of(lambda: Vspw(str(copy)).read(VIDEO))
    assert (error.reason, error.video) == (reason, VIDEO)
    assert error.file
    assert error.cure


@pytest.mark.parametrize("missing", ["data", "train.txt"])
def test_a_missing_part_of_the_layout_is_named(copy, missing):
    (copy / missing).rename(copy / "elsewhere")
    with pytest.raises(FileNotFoundError, match=missing):
        Vspw(str(copy))
