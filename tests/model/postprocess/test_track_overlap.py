"""The overlap of tracks against dense masks."""

from __future__ import annotations

from hypothesis import given, settings

from model.postprocess.track_overlap import compare_tracks
from tests.pipeline.metrics.some_tracks import scored_tracks
from tests.pipeline.metrics.test_track_ap import area, dense


@settings(max_examples=10, deadline=None)
@given(scored_tracks(most=1))
def test_ious_and_areas_are_those_of_the_dense_masks(pairs):
    ((prediction, truth),) = pairs
    ious, areas, true_areas = compare_tracks(prediction.tracks, truth.tracks)
    assert (ious.shape, len(areas), len(true_areas)) == (
        (len(prediction.tracks), len(truth.tracks)), len(prediction.tracks), len(truth.tracks))
    for i, predicted in enumerate(prediction.tracks):
        assert areas[i] == area(dense(predicted))
        for j, target in enumerate(truth.tracks):
            a = dense(predicted)
            b = dense(target)
            assert ious[i, j] == (a & b).sum() / max((a | b).sum(), 1)
