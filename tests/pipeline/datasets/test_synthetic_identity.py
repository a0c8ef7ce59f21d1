"""Every identity world keeps its promise: who hides is away for longer than a clip, unlabelled, and comes back."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.synthetic_drawing import draw
from pipeline.datasets.synthetic_identity import AWAY, FEWEST_FRAMES, LONG_HIDING, MIXED, WORLDS
from pipeline.datasets.synthetic_scene import Scene, make_scene
from pipeline.datasets.synthetic_things import STUFF
from pipeline.datasets.vipseg import VipSeg


def scenes(preset: str, count: int, **changes) -> list[Scene]:
    config = SyntheticConfig(preset=preset, frames=FEWEST_FRAMES.get(preset, 12), **changes)
    return [make_scene(config, np.random.default_rng([config.seed, 0, index])) for index in range(count)]


def seen(scene: Scene) -> np.ndarray:
    """Whether each thing has pixels in each frame: T things."""
    return np.stack([[(label == len(STUFF) + index).any() for index in range(len(scene.things))]
                     for _, label in draw(scene)])


def gaps(frames_seen: np.ndarray) -> list[int]:
    """Lengths of the times between two frames that show a thing. frames_seen: T."""
    return [int(gap) for gap in np.diff(np.flatnonzero(frames_seen)) - 1 if gap]


def look(thing) -> tuple:
    return thing.kind, thing.texture, thing.radius, tuple(thing.color)


@pytest.mark.parametrize(("preset", "labels"), [("easy", "1da48d10a6221cbe"), ("hard", "ba67a92d5af2f8e3")])
def test_earlier_presets_are_drawn_as_before(preset, labels):
    drawn = hashlib.sha256()
    for scene in scenes(preset, 6):
        for _, label in draw(scene):
            drawn.update(label.tobytes())
    assert drawn.hexdigest()[:16] == labels


@pytest.mark.parametrize("preset", ["hard", "reappear", "cross", "camera", "long"])
def test_who_hides_is_away_for_longer_than_a_clip(preset):
    stays = [gap for scene in scenes(preset, 15) for column in seen(scene).T for gap in gaps(column)]
    assert len(stays) >= 15
    # a thing cut by a border may show too little to be labelled for a frame or two before or after it hides
    assert np.mean([stay >= LONG_HIDING for stay in stays]) > 0.95


@pytest.mark.parametrize("preset", ["reappear", "cross", "camera"])
def test_everyone_is_seen_before_and_after_hiding(preset):
    found = [len(gaps(column)) >= 1 for scene in scenes(preset, 25) for column in seen(scene).T]
    assert np.mean(found) > 0.95


def test_hidden_things_have_no_label(tmp_path):
    config = SyntheticConfig(videos_train=0, videos_val=3, preset="reappear", height=48, width=64)
    dataset = VipSeg(str(write_world(tmp_path / "world", config)), split="val")
    for index, name in enumerate(dataset.video_ids()):
        scene = make_scene(config, np.random.default_rng([0, 1, index]))
        expected = seen(scene).sum(1)
        video = dataset.read(name)
        things = {s.id for s in video.segments if dataset.classes.classes[s.class_index].is_thing}
        assert [len(things & set(frame.segment_ids)) for frame in video.frames] == expected.tolist()
        assert 0 in expected


def test_things_that_reappear_differ_in_looks_alone_and_vanish_together():
    for scene in scenes("reappear", 20):
        things = scene.things
        assert 2 <= len(things) <= 3
        assert scene.pillar is None
        assert len({(thing.kind, thing.radius) for thing in things}) == 1
        assert len({thing.texture for thing in things}) == len(things)
        differences = [np.abs(a.color - b.color).max() for n, a in enumerate(things) for b in things[:n]]
        assert min(differences) > 40
        shown = seen(scene)
        assert (shown == shown[:, :1]).all()


def test_things_reappear_in_another_quarter():
    for scene in scenes("reappear", 20):
        size = np.array([scene.height, scene.width])
        for thing in scene.things:
            shown = np.flatnonzero((thing.centers != AWAY * thing.radius).all(1))
            after = shown[np.flatnonzero(np.diff(shown) > 1) + 1]
            starts = [0, *after.tolist()]
            quarters = [tuple(thing.centers[start] // (size / 2)) for start in starts]
            assert len(starts) >= 2
            assert all(a != b for a, b in pairwise(quarters))


def case_of(scene: Scene) -> str:
    """Which of the three cases of `cross` this is."""
    axis = scene.pillar.axis
    first, second = scene.things
    ways = [np.sign(thing.centers[-1, axis] - thing.centers[0, axis]) for thing in (first, second)]
    if ways[0] != ways[1]:
        return "against"
    order = np.sign(first.centers[:, 1 - axis] - second.centers[:, 1 - axis])
    return "changing" if order[0] != order[-1] else "beside"


@pytest.mark.parametrize("preset", ["cross", "camera"])
def test_the_three_cases_of_cross_occur_in_thirds(preset):
    counts = Counter(case_of(scene) for scene in scenes(preset, 300))
    assert set(counts) == {"against", "beside", "changing"}
    assert all(75 <= count <= 125 for count in counts.values())      # a third, give or take three deviations


def test_twins_that_cross_look_the_same_and_move_evenly():
    for scene in scenes("cross", 20):
        assert len({look(thing) for thing in scene.things}) == 1
        for thing in scene.things:
            steps = np.diff(thing.centers[:, scene.pillar.axis])
            assert np.allclose(steps, steps[0])
            assert 0.075 * 96 <= abs(steps[0]) <= 0.09 * 96


def test_a_crowd_is_five_equal_things_and_many_are_twenty():
    for scene in scenes("crowd", 5):
        assert len(scene.things) == 5
        assert len({look(thing) for thing in scene.things}) == 1
    for scene in scenes("many", 3, height=128, width=128):
        assert len(scene.things) == 20
        assert max(Counter(look(thing) for thing in scene.things).values()) >= 4
        assert seen(scene).mean() > 0.7


def test_long_videos_show_returns_from_outside():
    for scene in scenes("long", 10):
        returns = []
        for thing in scene.things:
            away = (thing.centers[:, scene.pillar.axis] == AWAY * thing.radius)
            returns += np.flatnonzero(away[:-1] & ~away[1:]).tolist()
        assert len(returns) >= len(scene.things)


def warped(label: np.ndarray, scene: Scene, time: int) -> np.ndarray:
    """A map of the world, at the size of a frame, as the camera shows it; -1 where it looks beyond the map."""
    middle = np.array(label.shape) / 2
    lines = [(np.arange(size) - half) / scene.zoom[time] + half + offset
             for size, half, offset in zip(label.shape, middle, scene.camera[time])]
    nearest = [np.rint(line).astype(int) for line in lines]
    inside = [(line >= 0) & (line < size) for line, size in zip(nearest, label.shape)]
    result = label[np.ix_(*(line.clip(0, size - 1) for line, size in zip(nearest, label.shape)))].astype(int)
    result[~(inside[0][:, None] & inside[1])] = -1
    return result


def test_a_camera_moves_stuff_and_things_together():
    for scene in scenes("camera", 8):
        assert np.ptp(scene.zoom) > 0.05
        assert np.ptp(scene.camera, axis=0).min() > 0.03 * 96
        still = replace(scene, bands=tuple(replace(band, speed=0.0) for band in scene.bands), things=tuple(
            replace(thing, centers=np.repeat(thing.centers[1:2], 12, 0), angle=np.repeat(thing.angle[:1], 12))
            for thing in scene.things))
        world = replace(still, camera=np.zeros_like(still.camera), zoom=np.ones_like(still.zoom))
        unmoved = next(label for _, label in draw(world))
        for time, (_, label) in enumerate(draw(still)):
            expected = warped(unmoved, still, time)
            known = expected >= 0
            assert (label[known] == expected[known]).mean() > 0.97      # the rest are borders, cut at whole pixels
            assert (label != unmoved).any() or not known.any()


def test_a_mixed_world_is_one_of_four_in_each_video():
    kinds = Counter()
    config = SyntheticConfig(preset="mixed")
    for index in range(80):
        drawn = np.random.default_rng([0, 0, index])
        scene = make_scene(config, drawn)
        rng = np.random.default_rng([0, 0, index])
        preset = MIXED[rng.integers(len(MIXED))]
        things, _ = WORLDS[preset](replace(config, preset=preset), rng)
        assert [look(thing) for thing in things] == [look(thing) for thing in scene.things]
        kinds[preset] += 1
    assert set(kinds) == set(MIXED)
    assert min(kinds.values()) >= 10
