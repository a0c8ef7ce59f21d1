"""The synthetic world: readers give back the drawn labels, a seed fixes the bytes, and a preset keeps its promise."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.synthetic import SyntheticConfig, uncompressed_run_lengths, world_classes, write_world
from pipeline.datasets.synthetic_drawing import draw
from pipeline.datasets.synthetic_identity import LONG_HIDING
from pipeline.datasets.synthetic_scene import make_scene
from pipeline.datasets.synthetic_things import STUFF
from pipeline.datasets.vipseg import VipSeg
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.images import jpeg_size

TINY = SyntheticConfig(videos_train=2, videos_val=1, frames=3, height=48, width=64)


def digests(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*")) if path.is_file()}


def scene_of(config: SyntheticConfig, index: int, *, split: int = 0):
    return make_scene(config, np.random.default_rng([config.seed, split, index]))


@pytest.mark.parametrize("preset", ["easy", "hard", "cross", "camera", "crowd"])
def test_vipseg_reads_the_drawn_labels(tmp_path, preset):
    config = replace(TINY, frames=12, preset=preset)
    dataset = VipSeg(str(write_world(tmp_path / "world", config)))
    for index, video_id in enumerate(dataset.video_ids()):
        scene = scene_of(config, index)
        video = dataset.read(video_id)
        drawn = np.stack([label for _, label in draw(scene)])
        read = np.stack([dataset.frame_ids(video, frame) for frame in video.frames])
        pairs = {(int(d), int(r)) for d, r in zip(drawn.ravel(), read.ravel())}
        assert len(pairs) == len({d for d, _ in pairs}) == len({r for _, r in pairs})     # one id each in all frames
        kinds = [*STUFF, *(thing.kind for thing in scene.things)]
        names = {s.id: dataset.classes.classes[s.class_index].name for s in video.segments}
        assert all(names[r] == kinds[d] for d, r in pairs)
        for frame, ids in zip(video.frames, read):
            assert set(frame.segment_ids) == set(np.unique(ids).tolist())
            assert jpeg_size(frame.image.read_bytes()) == (48, 64)


def test_youtube_vis_reads_the_drawn_labels(instance_world):
    config = SyntheticConfig(**json.loads((instance_world / "world.json").read_text()))
    dataset = YouTubeVis(str(instance_world), split="valid")
    scene = scene_of(config, 0, split=1)
    video = dataset.read("valid_00000")
    drawn = np.stack([label for _, label in draw(scene)])
    visible = [index for index in range(len(scene.things)) if (drawn == len(STUFF) + index).any()]
    assert [dataset.classes.classes[s.class_index].name for s in video.segments] == \
        [scene.things[index].kind for index in visible]
    for index, segment in zip(visible, video.segments):
        assert [segment.id in frame.masks for frame in video.frames] == \
            (drawn == len(STUFF) + index).any(axis=(1, 2)).tolist()


def test_json_areas_are_pixel_counts(panoptic_world):
    content = json.loads((panoptic_world / "panoptic_gt_VIPSeg_val.json").read_text())
    for frame in content["annotations"][0]["annotations"]:
        assert sum(info["area"] for info in frame["segments_info"]) == 48 * 64     # every pixel has a label


@pytest.mark.parametrize("layout", ["vipseg", "youtube_vis", "ovis", "vspw", "kitti_step", "coco"])
def test_a_seed_fixes_every_byte(tmp_path, layout):
    config = replace(TINY, layout=layout)
    first, second = (digests(write_world(tmp_path / name, config)) for name in ("first", "second"))
    assert first == second
    other = digests(write_world(tmp_path / "other", replace(config, seed=1)))
    assert not {k for k in first if k.endswith((".jpg", ".png"))} & {k for k in other if first.get(k) == other[k]}


def test_more_videos_only_add_to_the_set(tmp_path):
    small = digests(write_world(tmp_path / "small", TINY))
    large = digests(write_world(tmp_path / "large", replace(TINY, videos_train=3)))
    pictures = {name for name in small if name.endswith((".jpg", ".png"))}
    assert all(large[name] == small[name] for name in pictures)


def test_a_finished_world_is_reused_and_another_refused(tmp_path):
    root = write_world(tmp_path / "world", TINY)
    marker = root / "images" / "train_00000" / "00000012.jpg"
    written = marker.stat().st_mtime_ns
    assert write_world(root, TINY) == root
    assert marker.stat().st_mtime_ns == written
    with pytest.raises(ValueError, match=r"seed is 0, wanted 5.*Delete the folder"):
        write_world(root, replace(TINY, seed=5))
    (root / "world.json").unlink()
    with pytest.raises(ValueError, match="not a synthetic world"):
        write_world(root, TINY)


def test_an_interrupted_world_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("pipeline.datasets.synthetic.json.dumps", full)
    with pytest.raises(OSError, match="No space left"):
        write_world(tmp_path / "world", TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("height", "width"), [(64, 64), (180, 320), (320, 180)])
@pytest.mark.parametrize("preset", ["easy", "hard", "reappear", "crowd", "many"])
def test_a_size_scales_the_world(height, width, preset):
    config = SyntheticConfig(height=height, width=width, preset=preset)
    shares = []
    for index in range(12):
        for image, label in draw(scene_of(config, index)):
            assert image.shape == (height, width, 3)
            assert image.dtype == label.dtype == np.uint8
            shares.append((label >= len(STUFF)).sum() / min(height, width) ** 2)
    assert 0.02 < np.mean(shares) < 0.3      # things cover a similar share of a square of the shorter side


def test_every_thing_of_a_hard_world_hides_longer_than_a_clip_and_returns_elsewhere():
    config = SyntheticConfig(preset="hard", camera=0.05)
    for index in range(20):
        scene = scene_of(config, index)
        visible = np.stack([[(label == len(STUFF) + index).any() for index in range(len(scene.things))]
                            for _, label in draw(scene)])      # T things
        for column, thing in enumerate(scene.things):
            frames = np.flatnonzero(visible[:, column])
            gaps = np.diff(frames) - 1
            assert gaps.max() >= LONG_HIDING
            left = frames[gaps.argmax()]
            returned = frames[gaps.argmax() + 1]
            assert np.linalg.norm(thing.centers[left] - thing.centers[returned]) > thing.radius


def test_twins_of_a_hard_world_look_the_same_and_trade_places():
    scenes = [scene_of(SyntheticConfig(preset="hard"), index) for index in range(20)]
    for scene in scenes:
        axis = scene.pillar.axis
        middle = (scene.pillar.start + scene.pillar.end) / 2
        pairs = [(a, b) for n, a in enumerate(scene.things) for b in scene.things[:n]
                 if a.kind == b.kind and a.texture == b.texture and a.radius == b.radius
                 and np.array_equal(a.color, b.color)]
        assert pairs
        traded = [(a.centers[0, axis] - middle) * (b.centers[0, axis] - middle) < 0
                  and (a.centers[0, axis] - middle) * (a.centers[-1, axis] - middle) < 0 for a, b in pairs]
        assert any(traded)


@pytest.mark.parametrize(("change", "message"), [
    ({"preset": "medium"}, "preset='medium'"), ({"layout": "ade20k"}, "layout='ade20k'"),
    ({"things": 9}, r"things=9 must lie between 1 and 4"), ({"height": 8}, "height=8"),
    ({"preset": "hard", "frames": 6}, "Set frames to at least 12"),
    ({"preset": "long", "frames": 24}, "preset 'long' .*Set frames to at least 32")])
def test_an_impossible_world_is_refused_with_the_cure(change, message):
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**change)


@pytest.mark.parametrize(("things", "stuff"), [(1, 1), (2, 4), (4, 1), (4, 4)])
def test_only_the_configured_classes_appear(things, stuff):
    config = SyntheticConfig(things=things, stuff=stuff, preset="hard")
    names = {info.name for info in world_classes(config).classes}
    assert len(names) == things + stuff
    for index in range(8):
        scene = scene_of(config, index)
        _, label = next(draw(scene))
        kinds = [*STUFF, *(thing.kind for thing in scene.things)]
        assert {kinds[value] for value in np.unique(label)} <= names


def test_run_lengths_start_with_background_and_go_down_the_columns():
    assert uncompressed_run_lengths(np.array([[0, 1], [0, 0]], dtype=bool)) == [2, 1, 1]
    assert uncompressed_run_lengths(np.array([[1, 0], [1, 0]], dtype=bool)) == [0, 2, 2]
    assert uncompressed_run_lengths(np.zeros((2, 3), dtype=bool)) == [6]
