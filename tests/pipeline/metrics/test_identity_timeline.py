"""Planted switches stand in the timeline exactly, and its switches are those that the metrics count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.metrics.identity import Identity, Switch
from pipeline.metrics.identity_timeline import panoptic_timeline, track_timeline
from pipeline.metrics.track_identity import THRESHOLDS, TrackIdentity
from tests.pipeline.metrics.some_tracks import scored_tracks
from tests.pipeline.metrics.some_videos import CLASSES, scored_videos
from tests.pipeline.metrics.test_identity import CAT, PREDICTED, THINGS, strip

A, B, X, Y = map(ord, "abxy")


def test_planted_switches_and_gaps_are_shown_exactly():
    predicted = strip(["aaabbb", "ssssss", "bbbaaa", "bbbsss", "bbbaaa"], PREDICTED)
    truth = strip(["xxxyyy", "xxxyyy", "xxxyyy", "xxx...", "xxxyyy"], THINGS)
    timeline = panoptic_timeline(predicted, truth, CLASSES)
    first, second = timeline.rows
    assert (first.thing, first.class_index, first.matches) == (X, CAT, (A, None, B, B, B))
    assert first.seen == (True,) * 5
    assert (second.thing, second.matches) == (Y, (B, None, A, None, A))
    assert second.seen == (True, True, True, False, True)
    assert timeline.switches == (Switch(frame=2, thing=X, before=A, before_frame=0, after=B),
                                 Switch(frame=2, thing=Y, before=B, before_frame=0, after=A))


def test_a_video_without_a_switch_has_none():
    timeline = panoptic_timeline(strip(["aaabbb"] * 3, PREDICTED), strip(["xxxyyy"] * 3, THINGS), CLASSES)
    assert timeline.switches == ()
    assert [row.matches for row in timeline.rows] == [(A,) * 3, (B,) * 3]


@settings(max_examples=40, deadline=None)
@given(scored_videos())
def test_the_switches_of_panoptic_videos_are_those_of_the_metric(pairs):
    for prediction, truth in pairs:
        metric = Identity(CLASSES)
        metric.update(prediction, truth)
        timeline = panoptic_timeline(prediction, truth, CLASSES)
        assert len(timeline.switches) == metric.result().switches
        assert len(timeline.rows) == metric.result().things
        assert sum(sum(row.seen) for row in timeline.rows) == metric.result().true


@settings(max_examples=30, deadline=None)
@given(scored_tracks())
def test_the_switches_of_tracks_are_those_of_the_metric_at_every_threshold(pairs):
    for prediction, truth in pairs:
        metric = TrackIdentity(CLASSES)
        metric.update(prediction, truth)
        record = metric.videos[truth.video_id]
        for threshold, (_, true, _, switches) in zip(THRESHOLDS, record["counts"]):
            timeline = track_timeline(prediction, truth, threshold=threshold)
            assert len(timeline.switches) == switches
            assert sum(sum(row.seen) for row in timeline.rows) == true
            for switch in timeline.switches:
                row = next(row for row in timeline.rows if row.thing == switch.thing)
                assert row.matches[switch.before_frame] == switch.before
                assert row.matches[switch.frame] == switch.after
                assert prediction.tracks[switch.after].score >= threshold


@pytest.mark.parametrize("frames", [1, 4])
def test_a_prediction_without_things_leaves_gaps(frames):
    timeline = panoptic_timeline(strip(["ssssss"] * frames, PREDICTED), strip(["xxxyyy"] * frames, THINGS), CLASSES)
    assert [row.matches for row in timeline.rows] == [(None,) * frames] * 2
    assert np.all([row.seen for row in timeline.rows])
