"""The memory buffer finds objects again by appearance and location; the naive one uses appearance alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.association.memory_buffer import MemoryBuffer, MemoryBufferConfig, NaiveBufferConfig
from tests.model.association.scenes import clip, look, thing

ONLINE = MemoryBufferConfig(overlap=0)
NAIVE = NaiveBufferConfig(overlap=0)
OFFICIAL = MemoryBufferConfig(overlap=0, official_compat=True)


def tracks_of(config, *clips) -> list[list[int]]:
    linker = config.build()
    return [linker.step(one).tolist() for one in clips]


@pytest.mark.parametrize("config", [ONLINE, NAIVE, OFFICIAL, MemoryBufferConfig()])
def test_a_permutation_of_the_segments_is_undone(config):
    rng = np.random.default_rng(0)
    linker = config.build()
    for index in range(5):
        order = rng.permutation(4) if index else np.arange(4)
        tracks = linker.step(clip(*(thing(90 * i + rng.uniform(-5, 5), (10 * i, 3)) for i in order)))
        assert tracks.tolist() == (order + 1).tolist()


def test_crossing_look_alikes_keep_their_tracks_by_location_and_the_naive_buffer_confuses_them():
    """Two similar objects pass each other on two lanes, while each takes on the former appearance of the other."""
    angles = [(0, 10), (2, 8), (9, 1), (10, 0)]
    clips = [clip(thing(a, (4 + 8 * k, 0)), thing(b, (30 - 8 * k, 14))) for k, (a, b) in enumerate(angles)]
    assert tracks_of(ONLINE, *clips) == [[1, 2]] * 4
    assert tracks_of(NAIVE, *clips) == [[1, 2], [1, 2], [2, 1], [2, 1]]


def test_an_object_out_of_sight_keeps_its_last_motion():
    """It moves right and hides. A similar object appears where it vanished, but it is expected further right."""
    walk = [clip(thing(0, (2 + 6 * k, 0))) for k in range(3)]
    other = thing(0, (14, 0))
    hidden = [clip(), clip()]
    back = clip(other, thing(0, (32, 0)))
    assert tracks_of(ONLINE, *walk, *hidden, back)[-1] == [2, 1]
    assert tracks_of(NAIVE, *walk, *hidden, back)[-1] == [2, 3]     # and the naive buffer has forgotten it


@pytest.mark.parametrize(("absent", "track"), [(1, 1), (10, 1), (11, 2)])
def test_an_object_that_comes_back_within_patience_gets_its_track_and_later_a_new_one(absent, track):
    there = clip(thing(0, (9, 9)))
    for config in (ONLINE, OFFICIAL):
        assert tracks_of(config, there, *[clip()] * absent, there)[-1] == [track]


def test_stitching_goes_first_and_only_other_things_are_compared_with_memory():
    """The stitched square is similar to the hidden one, and may not take its track."""
    first = clip(thing(0, (0, 0)), thing(90, (20, 0)))
    second = clip(thing(90, (0, 0)), shared=1)
    third = clip(thing(90, (0, 0)), thing(90, (20, 0)), shared=1)
    linker = MemoryBuffer(MemoryBufferConfig())
    assert [linker.step(one).tolist() for one in (first, second, third)] == [[1, 2], [1], [1, 2]]
    assert (linker.matching.clips, linker.matching.total, linker.matching.largest) == (3, 1, 1)


def test_location_aware_memory_makes_fewer_comparisons_than_the_naive_one():
    clips = [clip(*(thing(90 * i, (10 * i, 5)) for i in range(4)), shared=min(k, 1)) for k in range(5)]
    sizes = {}
    for config in (MemoryBufferConfig(), NaiveBufferConfig()):
        linker = config.build()
        for one in clips:
            assert linker.step(one).tolist() == [1, 2, 3, 4]
        sizes[config.kind] = linker.matching.summary()
    assert sizes == {"memory_buffer": {"average": 0, "max": 0}, "naive_buffer": {"average": 4 * 16 / 5, "max": 16}}


def test_appearance_is_a_running_mean_and_the_box_the_last_one():
    linker = MemoryBuffer(ONLINE)
    for degrees, place in ((0, (0, 0)), (20, (4, 0))):
        linker.step(clip(thing(degrees, place)))
    (entry,) = linker.memory.values()
    np.testing.assert_allclose(entry.appearance, 0.8 * look(0) + 0.2 * look(20))
    np.testing.assert_allclose((entry.box, entry.before), [(0.1, 0, 0.2, 0.2), (0, 0, 0.1, 0.2)])


def test_two_objects_never_take_one_entry_and_the_better_pair_goes_first():
    tracks = tracks_of(NAIVE, clip(thing(0, (0, 0))), clip(thing(20, (0, 0)), thing(5, (9, 0))))
    assert tracks == [[1], [2, 1]]


def test_an_object_of_another_class_is_another_object():
    clips = [clip(thing(0, (9, 9), label=label)) for label in (0, 1, 0)]
    assert tracks_of(ONLINE, *clips) == [[1], [1], [1]]
    linker = MemoryBuffer(ONLINE)
    for one in clips:
        linker.step(one)
    assert len(linker.memory) == 2


def test_official_compat_does_not_square_distances():
    """Both left edges move by a quarter of the width: the distance is about 0.35."""
    clips = [clip(thing(0, (0, 0))), clip(thing(0, (10, 0)))]
    distance = np.hypot(0.25, 0.25)
    assert np.exp(-distance) < 0.75 < np.exp(-distance ** 2)
    assert tracks_of(replace(ONLINE, accept=0.75), *clips) == [[1], [1]]
    assert tracks_of(replace(OFFICIAL, accept=0.75), *clips) == [[1], [2]]


def test_official_compat_takes_the_assignment_that_is_best_in_sum():
    """The first thing is now most similar to track 1, but then the second one would match no track."""
    memory = clip(thing(0, (0, 0)), thing(62, (9, 0)))
    now = clip(thing(25, (0, 0)), thing(-32, (9, 0)))
    assert tracks_of(replace(ONLINE, location=False), memory, now) == [[1, 2], [1, 3]]
    assert tracks_of(replace(OFFICIAL, location=False), memory, now) == [[1, 2], [2, 1]]


def test_official_compat_remembers_a_new_object_only_if_memory_held_no_candidate():
    old = clip(thing(0, (0, 0)))
    new = clip(thing(180, (30, 0)))
    assert tracks_of(ONLINE, old, new, new, new) == [[1], [2], [2], [2]]
    assert tracks_of(OFFICIAL, old, new, new, new) == [[1], [2], [3], [4]]
    # near-online, the shared frame finds it one clip later, and then it is remembered
    gone = thing(90, (9, 9))
    stays = thing(0, (0, 0))
    comes = thing(180, (30, 0))
    linker = replace(OFFICIAL, overlap=1).build()
    sizes = []
    for one in (clip(stays, gone), clip(stays, shared=1), *[clip(stays, comes, shared=1)] * 2, clip()):
        linker.step(one)
        sizes.append(len(linker.memory))
    assert sizes == [2, 2, 2, 3, 3]
    assert linker.step(new).tolist() == [3]


def test_empty_clips_and_empty_memory_are_handled():
    stuff = clip(thing(0, (0, 0), label=2), stuff=[2])
    for config in (MemoryBufferConfig(), NAIVE, OFFICIAL):
        assert tracks_of(config, clip(), stuff, clip(), clip(thing(0, (0, 0)))) == [[], [0], [], [1]]


@pytest.mark.parametrize("change", [{"overlap": -1}, {"patience": -1}, {"temperature": 0}, {"update": 1.5}])
def test_settings_that_cannot_work_are_refused(change):
    with pytest.raises(ValueError, match=r"memory_buffer with .*official: 1, 10"):
        MemoryBufferConfig(**change)
