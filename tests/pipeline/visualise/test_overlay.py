"""Pictures: what is drawn where."""

from __future__ import annotations

import numpy as np
import pytest

from model.contracts import VideoSegment
from model.labels import DIVISOR, VOID, ClassInfo, ClassTable
from pipeline.visualise.overlay import GAP, beside, edges, overlay
from pipeline.visualise.palette import palette

CLASSES = ClassTable("two", (ClassInfo(1, "cat", True, (250, 0, 0)), ClassInfo(2, "sky", False, (0, 0, 250))))
SEGMENTS = {1: VideoSegment(class_index=0, track=1), DIVISOR: VideoSegment(class_index=1, track=0)}

CAT = palette(SEGMENTS, CLASSES)[1]


@pytest.fixture
def world():
    """A grey frame; left third void, middle cat, right sky."""
    ids = np.full((120, 180), VOID, np.int32)
    ids[:, 60:120] = 1
    ids[:, 120:] = DIVISOR
    return np.full((120, 180, 3), 100, np.uint8), ids


def test_colours_lie_on_segments_and_void_stays_as_it_was(world):
    frame, ids = world
    picture = overlay(frame, ids, SEGMENTS, CLASSES, outlines=False, names=False)
    assert (picture[:, :60] == 100).all()
    assert np.abs(picture[60, 90].astype(int) - (np.array(CAT) + 100) / 2).max() <= 1
    assert np.abs(picture[60, 150].astype(int) - (50, 50, 175)).max() <= 1
    assert (frame == 100).all()


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 100), (1.0, CAT)])
def test_alpha_runs_from_the_frame_to_the_colours(world, alpha, expected):
    picture = overlay(*world, SEGMENTS, CLASSES, alpha=alpha, outlines=False, names=False)
    assert (picture[60, 90] == expected).all()


def test_outlines_are_where_segments_meet_and_nowhere_else(world):
    frame, ids = world
    found = edges(ids)
    assert found[:, 118:122].any(axis=1).all()
    assert not found[:, 65:115].any()
    drawn = overlay(frame, ids, SEGMENTS, CLASSES, names=False)
    assert (drawn[60, 90] == overlay(frame, ids, SEGMENTS, CLASSES, outlines=False, names=False)[60, 90]).all()
    assert tuple(drawn[60, 120]) == (0, 0, 250)


def test_names_are_written_inside_their_segments_and_the_picture(world):
    frame, ids = world
    plain, named = (overlay(frame, ids, SEGMENTS, CLASSES, names=names) for names in (False, True))
    changed = (plain != named).any(axis=2)
    assert changed[:, 60:120].any()
    assert changed[:, 120:].any()
    assert not changed[:, :55].any()


def test_small_segments_stay_without_a_name(world):
    frame, ids = world
    ids[:] = DIVISOR
    ids[50:52, 50:52] = 1
    plain, named = (overlay(frame, ids, SEGMENTS, CLASSES, names=names) for names in (False, True))
    assert not (plain != named)[45:57, 45:57].any()


def test_sizes_that_differ_are_refused(world):
    with pytest.raises(ValueError, match="resize the ids"):
        overlay(world[0][:60], world[1], SEGMENTS, CLASSES)


def test_pictures_stand_beside_each_other_under_their_titles(world):
    frame = world[0]
    row = beside([frame, frame, frame])
    assert row.shape == (120, 3 * 180 + 2 * GAP, 3)
    titled = beside([frame, frame], titles=("frame", "truth"))
    assert titled.shape[0] > 120
    assert (titled[-120:] == beside([frame, frame])).all()
    assert (titled[:-120] < 50).any()
    with pytest.raises(ValueError, match="one height"):
        beside([frame, frame[:60]])
