"""Stitching: objects are identified by the shared frame."""

from __future__ import annotations

import numpy as np
import pytest

from model.association.linker import best_first
from model.association.stitching import StitchingConfig, StitchingLinker, mutual_pairs, overlap_of_segments
from tests.model.association.scenes import clip, thing


def tracks_of(*clips, official_compat=False) -> list[list[int]]:
    linker = StitchingLinker(StitchingConfig(official_compat=official_compat))
    return [linker.step(one).tolist() for one in clips]


def test_a_permutation_of_the_segments_is_undone_for_any_appearance():
    rng = np.random.default_rng(0)
    places = [(0, 0), (10, 0), (20, 0), (0, 10), (10, 10)]
    linker = StitchingLinker(StitchingConfig())
    first = clip(*(thing(0, p, p) for p in places))
    assert linker.step(first).tolist() == [1, 2, 3, 4, 5]
    for _ in range(4):
        order = rng.permutation(5)
        tracks = linker.step(clip(*(thing(rng.uniform(0, 360), places[i], places[i]) for i in order), shared=1))
        assert tracks.tolist() == (order + 1).tolist()


def test_a_moving_thing_keeps_its_track_and_one_elsewhere_starts_a_new_one():
    clips = [clip(thing(0, (0, 0), (3, 0))), clip(thing(0, (4, 1), (7, 1)), thing(0, (30, 9), (30, 9)), shared=1)]
    assert tracks_of(*clips) == [[1], [1, 2]]


def test_the_last_frame_of_the_clip_before_is_compared_with_the_first_of_the_next():
    """Two squares change places between frame 0 and frame 1 of the first clip."""
    before = clip(thing(0, (0, 0), (20, 0)), thing(0, (20, 0), (0, 0)))
    after = thing(0, (20, 0), (20, 0))
    assert tracks_of(before, clip(after, shared=1))[1] == [1]


def test_clips_that_share_no_frame_are_not_stitched_and_tracks_are_counted_by_class():
    clips = [clip(thing(0, (0, 0)), thing(0, (9, 0), label=1)) for _ in range(3)]
    assert tracks_of(*clips) == [[1, 1], [2, 2], [3, 3]]


def test_stuff_has_no_track_and_another_class_at_the_same_place_is_another_object():
    first = clip(thing(0, (0, 0)), thing(0, (9, 0), label=2), stuff=[2])
    second = clip(thing(0, (0, 0), label=1), thing(0, (9, 0), label=2), shared=1, stuff=[2])
    assert tracks_of(first, second) == [[1, 0], [1, 0]]


def test_official_compat_pairs_leftovers_and_lets_other_classes_compete():
    leftovers = [clip(thing(0, (0, 0)), thing(0, (9, 0))), clip(thing(0, (0, 0)), thing(0, (30, 9)), shared=1)]
    assert tracks_of(*leftovers) == [[1, 2], [1, 3]]
    assert tracks_of(*leftovers, official_compat=True) == [[1, 2], [1, 2]]
    # the square of class 0 overlaps most with one of class 1, which cannot continue it
    rivals = [clip(thing(0, (0, 0))), clip(thing(0, (2, 0)), thing(0, (0, 1), label=1), shared=1)]
    assert tracks_of(*rivals) == [[1], [1, 1]]
    assert tracks_of(*rivals, official_compat=True) == [[1], [2, 1]]


def test_overlaps_are_the_iou_of_masks_over_all_shared_frames():
    rng = np.random.default_rng(1)
    before, after = (clip(*(thing(0, *map(tuple, rng.integers(0, 12, (3, 2)))) for _ in range(6)), shared=2)
                     for _ in range(2))
    overlaps, present = overlap_of_segments(before, after)
    for old in range(6):
        for new in range(6):
            a = np.stack(before.frames[1:]) == old
            b = np.stack(after.frames[:2]) == new
            assert overlaps[old, new] == pytest.approx((a & b).sum() / max((a | b).sum(), 1))
            assert present[old, new] == (a.any() and b.any())


def test_official_compat_loses_a_pair_that_is_best_for_both_to_an_earlier_choice():
    """Rows are old squares, columns new ones. Old 0 and new 0 are best for each other, but old 1 chooses before."""
    overlaps = np.array([[0.6, 0.0, 0.0], [0.5, 0.8, 0.0], [0.0, 0.9, 0.0]])
    assert mutual_pairs(overlaps) == [(2, 1)]
    assert best_first(overlaps, least=0.1) == [(2, 1), (0, 0)]


@pytest.mark.parametrize("seed", range(3))
def test_official_pairs_are_one_to_one_and_minus_one_is_never_paired(seed):
    overlaps = np.random.default_rng(seed).random((5, 7))
    overlaps[overlaps < 0.3] = -1
    pairs = mutual_pairs(overlaps)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs) >= 1
    assert all(overlaps[pair] >= 0 for pair in pairs)


def test_empty_clips_are_handled():
    clips = clip(thing(0, (0, 0))), clip(shared=1), clip(thing(0, (0, 0)), shared=1)
    for official_compat in (False, True):
        assert tracks_of(*clips, official_compat=official_compat) == [[1], [], [2]]


def test_stitching_needs_a_shared_frame():
    with pytest.raises(ValueError, match=r"overlap=0: .*memory_buffer or clip_wise"):
        StitchingConfig(overlap=0)
