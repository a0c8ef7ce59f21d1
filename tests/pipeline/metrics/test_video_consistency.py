"""mVC against its definition, computed for every window and pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from model.labels import VOID
from pipeline.metrics.video_consistency import VideoConsistency
from tests.pipeline.metrics.some_videos import CLASSES, scored_videos, semantic
from tests.pipeline.metrics.test_miou import maps

WINDOWS = (2, 3, 5)


def by_definition(pairs, *, official):
    """Mean over all windows of all videos, per window length."""
    scores = {k: [] for k in WINDOWS}
    for prediction, truth in pairs:
        t = np.stack(list(truth.frames))
        p = np.stack(list(prediction.frames))
        for k in WINDOWS:
            for start in range(len(t) - k + (0 if official else 1)):
                still = (t[start:start + k] == t[start]).all(0)
                still &= True if official else t[start] != VOID
                same = (p[start:start + k] == p[start]).all(0)
                if still.any():
                    scores[k].append((still & same).sum() / still.sum())
    return {k: np.mean(values) if values else np.nan for k, values in scores.items()}


def score(pairs, *, official=False, windows=WINDOWS):
    metric = VideoConsistency(CLASSES, windows=windows, official_compat=official)
    for prediction, truth in pairs:
        metric.update(prediction, truth)
    return metric.result()


@pytest.mark.parametrize("official", [False, True])
@settings(max_examples=40, deadline=None)
@given(pairs=scored_videos())
def test_scores_are_the_definition_written_out(pairs, official):
    pairs = [(semantic(p), semantic(t)) for p, t in pairs]
    expected = by_definition(pairs, official=official)
    assert score(pairs, official=official).mvc == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(scored_videos())
def test_only_classes_matter_and_objects_do_not(pairs):
    assert score(pairs).summary() == score([(semantic(p), semantic(t)) for p, t in pairs]).summary()


def test_a_consistent_prediction_need_not_be_correct():
    assert score([(maps(*[[2, 2]] * 6), maps(*[[0, 1]] * 6))]).mvc == {2: 1, 3: 1, 5: 1}


def test_one_flicker_costs_every_window_that_contains_it_and_only_where_the_truth_is_still():
    truth = maps([0, 0], [0, 0], [0, 1], [0, 1], [0, 1])
    predicted = maps([0, 0], [0, 0], [1, 1], [0, 1], [0, 1])
    scores = score([(predicted, truth)], windows=(2,))
    assert scores.mvc[2] == pytest.approx((1 + 0 + 1 / 2 + 1) / 4)    # frames 0-1, 1-2, 2-3, 3-4
    assert scores.windows == {2: 4}


def test_the_official_script_skips_the_last_window_and_takes_void_for_a_class():
    truth = maps([VOID, 0], [VOID, 0], [VOID, 0])
    predicted = maps([0, 0], [1, 0], [1, 1])
    assert score([(predicted, truth)], windows=(2,)).mvc[2] == (1 + 0) / 2
    assert score([(predicted, truth)], windows=(2,), official=True).mvc[2] == 1 / 2
    assert score([(predicted, truth)], windows=(3,), official=True).summary() == {"mvc3": None}


def test_long_videos_remember_when_a_pixel_changed():
    truth = maps(*[[0, frame // 300] for frame in range(600)])
    scores = score([(truth, truth)], windows=(16,))
    assert (scores.mvc[16], scores.windows[16]) == (1, 585)
    assert "585 windows" in scores.table()


def test_windows_below_two_frames_are_refused():
    with pytest.raises(ValueError, match="from 2 up"):
        VideoConsistency(CLASSES, windows=(1, 8))
