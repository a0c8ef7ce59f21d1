"""Pasted segments keep their pixels and get new ids; everything else is unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from model.labels import ClassInfo, ClassTable
from pipeline.records import Segment
from pipeline.shards import StoredVideo
from pipeline.shards.format import StoredFrame
from pipeline.training_input.copy_paste import CopyPasteConfig, choose_segments, displaced, paste, renumber
from pipeline.training_input.targets import at_stride_4

CLASSES = ClassTable("toy", (ClassInfo(1, "sky", False, (0, 0, 0)), ClassInfo(2, "cow", True, (0, 0, 0)),
                             ClassInfo(3, "grass", False, (0, 0, 0))))
SEGMENTS = [Segment(id=1, class_index=0), Segment(id=2, class_index=1), Segment(id=3, class_index=1),
            Segment(id=4, class_index=2), Segment(id=5, class_index=1, is_crowd=True)]


@pytest.fixture
def ids() -> np.ndarray:
    """2 32 48 stripes of the ids 0 ... 5; id 3 is only in the second frame."""
    ids = np.broadcast_to(np.arange(48) // 8, (2, 32, 48)).astype(np.uint8).copy()
    ids[0][ids[0] == 3] = 0
    return ids


def chosen_ids(ids, **options) -> list[set[int]]:
    rng = np.random.default_rng(0)
    return [{segment.id for segment in choose_segments(ids, SEGMENTS, CLASSES, rng, **options)} for _ in range(400)]


def test_all_things_are_chosen_and_each_stuff_half_of_the_time(ids):
    chosen = chosen_ids(ids)
    assert all({2, 3} <= ids and 5 not in ids for ids in chosen)
    for stuff in (1, 4):
        assert np.mean([stuff in ids for ids in chosen]) == pytest.approx(0.5, abs=0.08)


def test_things_may_be_chosen_like_stuff(ids):
    """Each segment half of the time, and as many together as a uniform number says: none in a fifth of 400 draws."""
    chosen = chosen_ids(ids, all_things=False)
    for segment in (1, 2, 3, 4):
        assert np.mean([segment in ids for ids in chosen]) == pytest.approx(0.5, abs=4 * 0.5 / 400 ** 0.5)
    for count in range(5):
        assert np.mean([len(ids) == count for ids in chosen]) == pytest.approx(0.2, abs=4 * 0.4 / 400 ** 0.5)


def test_officially_only_the_first_frame_counts(ids):
    chosen = chosen_ids(ids, official_compat=True)
    assert all(2 in ids and 3 not in ids for ids in chosen)


def test_a_segment_outside_the_clip_is_not_chosen(ids):
    assert chosen_ids(np.zeros_like(ids)) == [set()] * 400


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_ids_and_real_pixels_change_where_pasted_and_nowhere_else(ids, dtype):
    rng = np.random.default_rng(0)
    frame, donor = rng.integers(0, 256, (2, 3, 40, 65), dtype=np.uint8)      # an even side and an odd one
    main_ids = rng.integers(0, 4, (10, 17)).astype(np.uint16)
    real = np.zeros((40, 65), dtype=bool)
    moved, _, new_ids = renumber([SEGMENTS[1], SEGMENTS[3]], after=10, highest=5)
    new_frame = frame.copy()
    new_main = main_ids.copy()
    paste(new_frame, new_main, real, donor, ids[1].astype(dtype), new_ids)

    pasted = np.zeros((40, 65), dtype=np.uint16)
    pasted[:32, :48] = np.select([ids[1] == 2, ids[1] == 4], [12, 14])
    assert_array_equal(new_frame, np.where(pasted, donor, frame))
    assert_array_equal(real, pasted > 0)
    assert_array_equal(new_main, np.where(at_stride_4(pasted), at_stride_4(pasted), main_ids))
    assert [(segment.id, segment.class_index) for segment in moved] == [(12, 1), (14, 2)]


def test_pasted_ids_never_meet_the_clips_own():
    moved, _, new_ids = renumber(SEGMENTS, after=5, highest=5)
    assert {segment.id for segment in moved}.isdisjoint(segment.id for segment in SEGMENTS)
    assert_array_equal(new_ids[1:6], [6, 7, 8, 9, 10])


def test_pasted_overlaps_keep_their_chosen_segments(ids):
    overlaps = {6: (2, 3), 7: (1, 4), 8: (2, 5), 9: (1, 5), 10: (1, 2, 4)}
    chosen = [SEGMENTS[1], SEGMENTS[2], SEGMENTS[3]]        # 2, 3 and 4: not 1, nor the crowd 5
    moved, shared, new_ids = renumber(chosen, after=20, highest=10, overlaps=overlaps)
    assert [segment.id for segment in moved] == [22, 23, 24]
    assert shared == {26: (22, 23), 27: (24,), 28: (22,), 30: (22, 24)}
    assert_array_equal(new_ids[:11], [0, 0, 22, 23, 24, 0, 26, 27, 28, 0, 30])


def test_a_segment_that_has_only_shared_pixels_is_chosen_too():
    only_shared = np.full((1, 8, 8), 6, np.uint8)
    rng = np.random.default_rng(0)
    chosen = choose_segments(only_shared, SEGMENTS, CLASSES, rng, overlaps={6: (2, 3)})
    assert [segment.id for segment in chosen] == [2, 3]


def test_only_things_with_the_data_sets_id_of_a_pasted_one_are_displaced():
    frame = StoredFrame(name="0", image=(0, 0), label=(0, 0))
    clip, donor = (StoredVideo(index=0, video_id="v", shard=0, height=8, width=8, frames=(frame,), segments=segments,
                               source_ids=source_ids)
                   for segments, source_ids in ((tuple(SEGMENTS[:4]), (70, 80, 90, 100)),
                                                (tuple(SEGMENTS[:4]), (70, 90, 81, 100))))
    assert displaced(clip, donor, SEGMENTS[:4], CLASSES) == [3]     # 90; 70 and 100 are stuff, which merges
    assert displaced(clip, donor, [SEGMENTS[2]], CLASSES) == []


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="probability"):
        CopyPasteConfig(probability=2.0)
    with pytest.raises(ValueError, match="scale"):
        CopyPasteConfig(scale=0.0)
