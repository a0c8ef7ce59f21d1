"""The KITTI-STEP reader: classes, instances, crowd, PNG frames, splits without maps, each kind of damage."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from model.labels import VOID, panoptic_id
from pipeline.datasets.kitti_step import TABLE, KittiStep
from pipeline.datasets.synthetic import SyntheticConfig, world_classes, write_world
from pipeline.datasets.synthetic_drawing import draw
from pipeline.datasets.synthetic_scene import make_scene
from pipeline.datasets.synthetic_things import STUFF
from pipeline.errors import BadInput
from pipeline.images import decode_jpeg, decode_png, encode_jpeg, encode_png
from pipeline.shards import ShardSet, make_shards
from tests.faults import error_of

CONFIG = SyntheticConfig(videos_train=2, videos_val=1, frames=12, height=48, width=64, preset="hard",
                         layout="kitti_step")
VIDEO = "train_00001"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("kitti") / "world", CONFIG)


@pytest.fixture
def copy(world, tmp_path) -> Path:
    return Path(shutil.copytree(world, tmp_path / "copy"))


def map_of(root: Path, frame: int = 2) -> Path:
    return root / "panoptic_maps" / "train" / VIDEO / f"{frame:06d}.png"


def change(root: Path, edit, frame: int = 2) -> None:
    """Edit the RGB map of a frame in place."""
    label = decode_png(map_of(root, frame).read_bytes())
    edit(label)
    map_of(root, frame).write_bytes(encode_png(label))


def test_the_classes_are_those_of_cityscapes_and_two_have_tracks():
    assert [info.dataset_id for info in TABLE.classes] == list(range(19))
    assert [info.name for info in TABLE.classes if info.is_thing] == ["person", "car"]
    assert (TABLE.classes[11].name, TABLE.classes[13].name) == ("person", "car")
    assert len({info.name for info in TABLE.classes}) == len({info.color for info in TABLE.classes}) == 19


def test_shards_hold_the_drawn_labels(world, tmp_path):
    """Each pixel keeps its class, each thing has one id in the whole video, and frames are JPEGs of the PNGs."""
    classes = world_classes(CONFIG)
    make_shards(KittiStep(str(world)), tmp_path / "shards", split="train")
    shards = ShardSet(tmp_path / "shards")
    position = {info.name: index for index, info in enumerate(classes.classes)}
    for video in shards.videos:
        scene = make_scene(CONFIG, np.random.default_rng([CONFIG.seed, 0, video.index]))
        kinds = [*STUFF, *(thing.kind for thing in scene.things)]
        pairs = set()
        stored = shards.read(video, 0, len(video.frames))
        for ids, (image, label), (jpeg, _) in zip(shards.truth(video).frames, draw(scene), stored, strict=True):
            pairs |= set(zip(label.ravel().tolist(), ids.ravel().tolist()))
            assert jpeg == encode_jpeg(image)
            assert np.abs(decode_jpeg(jpeg).astype(int) - image).mean() < 8
        assert len(pairs) == len({drawn for drawn, _ in pairs}) == len({read for _, read in pairs})
        for drawn, read in pairs:
            assert read // 10_000 == position[kinds[drawn]]
            assert (read % 10_000 > 0) == (drawn >= len(STUFF))


def test_class_and_instance_are_read_from_three_channels(copy):
    (copy / "categories.json").unlink()
    def labels(label):
        label[:] = (0, 0, 0)                    # road
        label[:8] = (13, 2, 7)                  # car 519
        label[8:16] = (11, 0, 0)                # persons that are not told apart
        label[16:20] = (255, 9, 9)              # void, whatever the instance
        label[20:24] = (3, 1, 1)                # wall: stuff has no instance
    for frame in range(12):
        change(copy, labels, frame)
    dataset = KittiStep(str(copy))
    video = dataset.read(VIDEO)
    read = {segment.id: (dataset.classes.classes[segment.class_index].name, segment.is_crowd)
            for segment in video.segments}
    assert read == {1 << 16: ("road", False), 4 << 16: ("wall", False), 12 << 16: ("person", True),
                    (14 << 16) + 519: ("car", False)}
    ids = dataset.frame_ids(video, video.frames[0])
    assert ids[::4, 0].tolist() == [(14 << 16) + 519] * 2 + [12 << 16] * 2 + [0, 4 << 16] + [1 << 16] * 6


def test_crowd_keeps_its_class_and_has_no_track(copy, tmp_path):
    thing = world_classes(CONFIG).is_thing
    def without_instance(label):
        label[..., 1:] = 0
    for frame in range(12):
        change(copy, without_instance, frame)
    shutil.rmtree(copy / "images" / "train" / "train_00000")
    make_shards(KittiStep(str(copy)), tmp_path / "shards", split="train")
    shards = ShardSet(tmp_path / "shards")
    [video] = shards.videos
    truth = shards.truth(video)
    crowd = {id for id, segment in truth.segments.items() if segment.is_crowd}
    assert crowd == {panoptic_id(s.class_index, 1) for s in video.segments if thing[s.class_index]}
    assert all(track.is_crowd for track in shards.truth_tracks(video).tracks)
    assert {int(index) for frame in shards.truth_semantic(video).frames for index in np.unique(frame)} == \
        {segment.class_index for segment in video.segments}
    assert VOID not in {int(id) for frame in truth.frames for id in np.unique(frame)}


def test_a_test_split_has_frames_and_no_labels(copy):
    (copy / "images" / "val").rename(copy / "images" / "test")
    video = KittiStep(str(copy), split="test").read("val_00000")
    assert (video.height, video.width, video.segments) == (48, 64, ())
    assert [(frame.label, frame.masks) for frame in video.frames] == [(None, None)] * 12


def test_a_pickled_reader_reads_the_same(world):
    dataset = KittiStep(str(world), split="val")
    assert pickle.loads(pickle.dumps(dataset)).read("val_00000") == dataset.read("val_00000")


DAMAGE = {
    "missing-image": [lambda root: (root / "images" / "train" / VIDEO / "000003.png").unlink()],
    "corrupt-label": [lambda root: map_of(root).write_bytes(map_of(root).read_bytes()[:-9]),
                      lambda root: map_of(root).write_bytes(encode_png(np.zeros((48, 64), np.uint8)))],
    "unknown-category": [lambda root: map_of(root).write_bytes(encode_png(np.full((48, 64, 3), 99, np.uint8)))],
    "size-differs": [lambda root: map_of(root).write_bytes(encode_png(np.zeros((48, 65, 3), np.uint8)))],
}


@pytest.mark.parametrize(("reason", "damage"), [(reason, damage) for reason, all_of in DAMAGE.items()
                                                for damage in all_of])
def test_each_kind_of_damage_has_its_own_error(copy, reason, damage):
    damage(copy)
    error = error_of(lambda: KittiStep(str(copy)).read(VIDEO))
    assert (error.reason, error.video) == (reason, VIDEO)
    assert error.file
    assert error.cure


@pytest.mark.parametrize("missing", ["images/train", "panoptic_maps/train"])
def test_a_missing_part_of_the_layout_is_named(copy, missing):
    (copy / missing).rename(copy / "elsewhere")
    with pytest.raises(FileNotFoundError, match=missing):
        KittiStep(str(copy))


def test_a_category_that_lacks_a_field_is_named(copy):
    (copy / "categories.json").write_text('[{"id": 1, "name": "road"}]')
    with pytest.raises(BadInput, match="isthing") as error:
        KittiStep(str(copy))
    assert error.value.reason == "bad-json"
