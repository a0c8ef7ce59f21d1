"""Targets agree with the id maps at stride 4."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from model.labels import ClassInfo, ClassTable
from pipeline.records import Segment
from pipeline.training_input.targets import at_stride_4, clip_tubes

CLASSES = ClassTable("toy", (ClassInfo(1, "sky", False, (0, 0, 0)), ClassInfo(2, "cow", True, (0, 0, 0)),
                             ClassInfo(3, "grass", False, (0, 0, 0))))
SEGMENTS = [Segment(id=1, class_index=0), Segment(id=2, class_index=1), Segment(id=4, class_index=1),
            Segment(id=5, class_index=2), Segment(id=7, class_index=2), Segment(id=8, class_index=1, is_crowd=True),
            Segment(id=9, class_index=1)]


@pytest.fixture
def ids() -> np.ndarray:
    """2 6 8 with void and all segments except id 9; id 4 is only in the second frame."""
    rng = np.random.default_rng(0)
    ids = rng.choice([0, 1, 2, 5, 7, 8], size=(2, 6, 8)).astype(np.uint8)
    ids[1, 2] = 4
    return ids


def test_things_stay_apart_stuff_of_a_class_is_joined_and_absent_segments_have_no_target(ids):
    targets = clip_tubes(ids, SEGMENTS, CLASSES).targets()
    assert targets.track_ids.tolist() == [1, 2, 4, 5]
    assert targets.classes.tolist() == [0, 1, 1, 2]
    for mask, members in zip(targets.masks.numpy(), [[1], [2], [4], [5, 7]]):
        assert_array_equal(mask, np.isin(ids, members))


def test_every_pixel_is_void_or_in_one_tube(ids):
    targets = clip_tubes(ids, SEGMENTS, CLASSES).targets()
    assert_array_equal(targets.masks.sum(0) + targets.void, np.ones_like(ids))
    assert_array_equal(targets.void, np.isin(ids, [0, 8]))


def test_a_clip_without_any_segment_has_no_targets():
    targets = clip_tubes(np.zeros((2, 3, 4), dtype=np.uint16), SEGMENTS, CLASSES).targets()
    assert targets.masks.shape == (0, 2, 3, 4)
    assert targets.classes.shape == targets.track_ids.shape == (0,)
    assert targets.void.all()


def test_overlapping_tubes_get_the_pixels_they_share(ids):
    """Ids from 10 on are shared by several segments; crowd is dropped, and stuff of one class is joined."""
    overlaps = {10: (2, 4), 11: (1, 2, 4), 12: (2, 8), 13: (8,), 14: (5, 7), 15: (4, 7), 16: (5, 4), 17: (2, 9)}
    rng = np.random.default_rng(1)
    ids = np.where(rng.random(ids.shape) < 0.6, rng.integers(10, 18, ids.shape), ids)
    small = clip_tubes(ids, SEGMENTS, CLASSES, overlaps=overlaps)
    targets = small.targets()
    assert targets.track_ids.tolist() == [1, 2, 4, 5, 9]
    for mask, members in zip(targets.masks.numpy(), [{1}, {2}, {4}, {5, 7}, {9}]):
        assert_array_equal(mask, np.isin(ids, [id for id in range(1, 18) if members & {*overlaps.get(id, (id,))}]))
    assert_array_equal(targets.void, np.isin(ids, [0, 8, 13]))
    assert small.overlaps == ((1, 2), (0, 1, 2), (2, 3), (1, 4))      # 16 equals 15; the others are one tube
    assert small.tubes.dtype == np.int16


def test_an_overlap_with_an_unlisted_segment_is_refused(ids):
    with pytest.raises(ValueError, match=r"hold \[6\]"):
        clip_tubes(np.full_like(ids, 10), SEGMENTS, CLASSES, overlaps={10: (2, 6)})


def test_an_unlisted_id_is_refused(ids):
    with pytest.raises(ValueError, match=r"\[7\]"):
        clip_tubes(ids, [segment for segment in SEGMENTS if segment.id != 7], CLASSES)


@pytest.mark.parametrize(("side", "first", "count"), [(65, 0, 17), (769, 0, 193), (64, 2, 16), (96, 2, 24)])
def test_odd_sides_start_at_the_corner_and_even_sides_in_the_middle(side, first, count):
    pixels = np.arange(side)[None].repeat(65, axis=0)
    assert_array_equal(at_stride_4(pixels)[0], first + 4 * np.arange(count))
    assert at_stride_4(pixels.T).shape == (count, 17)
