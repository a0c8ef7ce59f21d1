"""mIoU against its definition on dense maps, semantic and panoptic videos alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from model.contracts import SemanticVideo
from model.labels import VOID
from pipeline.errors import BadInput
from pipeline.metrics.miou import MeanIoU
from tests.pipeline.metrics.some_videos import CLASSES, scored_videos, semantic


def score(pairs):
    metric = MeanIoU(CLASSES)
    for prediction, truth in pairs:
        metric.update(prediction, truth)
    return metric.result()


def by_definition(pairs):
    """IoU of every class that occurs in the truth."""
    true, predicted = (np.concatenate([np.ravel(list(pair[side].frames)) for pair in pairs]) for side in (1, 0))
    predicted = predicted[true != VOID]
    true = true[true != VOID]
    return {c: ((true == c) & (predicted == c)).sum() / ((true == c) | (predicted == c)).sum()
            for c in range(3) if c in true}


@settings(max_examples=40, deadline=None)
@given(scored_videos())
def test_scores_are_the_definition_written_out(pairs):
    pairs = [(semantic(p), semantic(t)) for p, t in pairs]
    expected = by_definition(pairs)
    scores = score(pairs)
    assert {c: row.iou for c, row in enumerate(scores.per_class) if row.true} == pytest.approx(expected, abs=1e-12)
    assert scores.miou == pytest.approx(np.mean(list(expected.values())) if expected else np.nan, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(scored_videos())
def test_only_classes_matter_and_objects_do_not(pairs):
    dense = score([(semantic(p), semantic(t)) for p, t in pairs])
    assert score(pairs) == dense
    assert score([(p, semantic(t)) for p, t in pairs]) == dense


def maps(*rows, video="v"):
    return SemanticVideo(video_id=video, frame_names=tuple(map(str, range(len(rows)))),
                         frames=[np.array([row], np.int32) for row in rows])


def test_a_labelled_pixel_predicted_as_void_is_missed_and_unlabelled_pixels_never_count():
    scores = score([(maps([0, -1, 1, 2]), maps([0, 0, 1, VOID]))])
    assert [row.iou for row in scores.per_class[:2]] == [1 / 2, 1]
    assert np.isnan(scores.per_class[2].iou)
    assert scores.summary() == {"miou": 75.0}
    assert [row["class"] for row in scores.class_rows()] == ["cat", "dog"]


def test_a_class_that_only_the_prediction_has_is_left_out_of_the_mean():
    assert score([(maps([0, 0, 0, 2]), maps([0, 0, 0, 0]))]).miou == 3 / 4


def test_without_labels_there_is_no_score():
    scores = score([(maps([0, 1]), maps([VOID, VOID]))])
    assert scores.summary() == {"miou": None}
    assert "-" in scores.table()


def test_a_class_outside_the_table_is_refused_by_frame():
    with pytest.raises(BadInput, match=r"video 'v': frame '1' of the prediction holds the ids \[255\]"):
        score([(maps([0, 0], [0, 255]), maps([0, 0], [0, 0]))])
    with pytest.raises(BadInput, match="1 frames") as error:
        score([(maps([0, 0]), maps([0, 0], [0, 0]))])
    assert error.value.reason == "frame-mismatch"
    with pytest.raises(BadInput, match="no such frame"):
        score([(replace(maps([0, 0], [0, 0]), frames=[np.zeros((1, 2), np.int32)]), maps([0, 0], [0, 0]))])
