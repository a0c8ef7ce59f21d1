"""Track AP against COCO's protocol written out on dense masks, and its rules by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools import mask as run_lengths

from pipeline.errors import BadInput
from pipeline.metrics.track_ap import TrackAP
from pipeline.metrics.track_ap_scores import AREAS
from tests.pipeline.metrics.some_tracks import BLOCK, GRID, scored_tracks, track_of, video_of
from tests.pipeline.metrics.some_videos import CLASSES

CAT, DOG, SKY = range(3)
THRESHOLDS = [0.5 + 0.05 * i for i in range(10)]


def score(pairs):
    metric = TrackAP(CLASSES)
    for prediction, truth in pairs:
        metric.update(prediction, truth)
    return metric


def dense(track):
    """T GRID GRID bool: a pixel of every block."""
    empty = np.zeros((GRID, GRID), bool)
    return np.stack([empty if mask is None else run_lengths.decode(mask)[::BLOCK, ::BLOCK].astype(bool)
                     for mask in track.masks])


def area(masks):
    """Mean over the frames that show the track."""
    sizes = BLOCK**2 * masks.sum((1, 2))
    return sizes[sizes > 0].mean() if sizes.any() else 0


def one_video(predictions, targets, limits, threshold, cap):
    """[(score, right or wrong or None for ignored)], number of targets: one prediction after the other."""
    low, high = limits
    ignored = [t.is_crowd or not low <= area(m) <= high for t, m in targets]
    taken = set()
    outcomes = []
    for predicted, mask in sorted(predictions, key=lambda pair: -pair[0].score)[:cap]:
        best = None
        best_iou = -1
        for skipped in (False, True):                # those that count first, the ignored only if none fits
            for i, (target, other) in enumerate(targets):
                iou = (mask & other).sum() / max((mask | other).sum(), 1)
                if ignored[i] == skipped and iou >= max(best_iou, threshold) and (i not in taken or target.is_crowd):
                    best = i
                    best_iou = iou
            if best is not None:
                break
        if best is None:
            outcomes.append((predicted.score, False if low <= area(mask) <= high else None))
        else:
            taken.add(best)
            outcomes.append((predicted.score, None if ignored[best] else True))
    return outcomes, len(targets) - sum(ignored)


def by_definition(pairs):
    """All measures, class by class, then averaged."""
    scores = {}
    for index in range(len(CLASSES)):
        videos = [[[(t, dense(t)) for t in side.tracks if t.class_index == index] for side in pair] for pair in pairs]
        for name, limits in AREAS.items():
            for cap in (1, 10, 100):
                ap = []
                ar = []
                for threshold in THRESHOLDS:
                    parts = [one_video(g, t, limits, threshold - 1e-12, cap) for g, t in videos]
                    count = sum(targets for _, targets in parts)
                    ranked = sorted((o for part, _ in parts for o in part if o[1] is not None), key=lambda o: -o[0])
                    right = np.cumsum([hit for _, hit in ranked])
                    precision = right / np.arange(1, len(ranked) + 1)
                    if count:
                        ap.append(np.mean([max((p for p, r in zip(precision, right) if r / count >= level), default=0)
                                           for level in np.linspace(0, 1, 101)]))
                        ar.append(right[-1] / count if len(ranked) else 0)
                if not ap:
                    continue
                if name != "all" and cap == 100:
                    scores.setdefault(f"ap_{name}", []).append(np.mean(ap))
                    scores.setdefault(f"ar_{name}", []).append(np.mean(ar))
                if name == "all":
                    scores.setdefault(f"ar{cap}", []).append(np.mean(ar))
                if name == "all" and cap == 100:
                    for key, value in (("ap", np.mean(ap)), ("ap50", ap[0]), ("ap75", ap[5])):
                        scores.setdefault(key, []).append(value)
    return {key: np.mean(values) for key, values in scores.items()}


@settings(max_examples=25, deadline=None)
@given(scored_tracks(most=2))
def test_every_measure_is_the_protocol_written_out(pairs):
    expected = by_definition(pairs)
    scores = score(pairs).result().summary()
    assert {key for key, value in scores.items() if value is not None} == expected.keys()
    for key, value in expected.items():
        assert scores[key] == pytest.approx(100 * value, abs=1e-7), key


@settings(max_examples=10, deadline=None)
@given(scored_tracks())
def test_a_perfect_prediction_scores_one_and_none_scores_zero(pairs):
    perfect = score([(objects(truth), truth) for _, truth in pairs]).result().summary()
    assert all(perfect[key] in (None, pytest.approx(100)) for key in ("ap", "ap50", "ap75", "ar10", "ar100"))
    nothing = score([(replace(truth, tracks=()), truth) for _, truth in pairs]).result().summary()
    assert {value for value in nothing.values() if value is not None} <= {0}


@settings(max_examples=10, deadline=None)
@given(scored_tracks())
def test_a_perfect_prediction_scores_one_in_every_range_of_areas_where_tracks_lie_apart(pairs):
    """Where tracks overlap by half, a prediction of the wrong size may take a neighbour of the right size."""
    perfect = score([(objects(truth), truth) for _, truth in pairs if lie_apart(objects(truth))]).result().summary()
    assert all(value in (None, pytest.approx(100)) for key, value in perfect.items() if key != "ar1")


def objects(truth):
    """Only the tracks without crowds; a predicted crowd may take an object that lies in it."""
    return replace(truth, tracks=tuple(track for track in truth.tracks if not track.is_crowd))


def lie_apart(video):
    """Whether no two tracks of a class overlap by half."""
    return all(a.class_index != b.class_index or (dense(a) & dense(b)).sum() < 0.5 * (dense(a) | dense(b)).sum()
               for a, b in combinations(video.tracks, 2))


def square(size, *, at=0, frames=2, **fields):
    blocks = np.zeros((frames, GRID, GRID), bool)
    blocks[:, at:at + size, at:at + size] = True
    return track_of(blocks, **fields)


def ap_of(predictions, targets):
    return score([(video_of(predictions, frames=2), video_of(targets, frames=2))]).result().summary()


def test_a_duplicate_costs_precision_only_when_it_comes_first():
    target = square(4, class_index=CAT)
    wrong = square(2, at=6, class_index=CAT, score=0.5)
    right = square(4, class_index=CAT, score=0.9)
    assert ap_of([right, wrong], [target])["ap"] == pytest.approx(100)
    assert ap_of([right, replace(wrong, score=0.95)], [target])["ap"] == pytest.approx(50)
    assert ap_of([right, replace(wrong, score=0.95)], [target])["ar10"] == pytest.approx(100)
    assert ap_of([right, replace(wrong, score=0.95)], [target])["ar1"] == 0


def test_the_cap_of_one_holds_for_every_class_of_its_own():
    targets = [square(4, class_index=index) for index in (CAT, DOG)]
    assert ap_of([replace(target, score=0.3) for target in targets], targets)["ar1"] == pytest.approx(100)


def test_a_track_of_half_the_frames_has_half_the_iou():
    target = square(4, class_index=CAT)
    half = replace(target, masks=(target.masks[0], None))
    scores = ap_of([half], [target])
    assert (scores["ap50"], scores["ap75"]) == (pytest.approx(100), 0)
    assert scores["ap"] == pytest.approx(10)


def test_crowd_takes_any_number_of_predictions_and_counts_none():
    crowd = square(4, class_index=CAT, is_crowd=True)
    target = square(2, at=6, class_index=CAT)
    predictions = [replace(crowd, is_crowd=False, score=score) for score in (0.9, 0.8, 0.7)]
    assert ap_of([*predictions, replace(target, score=0.1)], [crowd, target])["ap"] == pytest.approx(100)
    assert ap_of(predictions, [crowd])["ap"] is None


def test_areas_split_targets_and_ignore_predictions_of_other_sizes():
    small = square(2, at=6, class_index=CAT)
    large = square(6, class_index=CAT)
    scores = ap_of([replace(large, score=0.9)], [small, large])
    assert (scores["ap_small"], scores["ap_medium"], scores["ap_large"]) == (0, None, pytest.approx(100))
    assert ap_of([replace(small, score=0.9), large], [small, large])["ap_large"] == pytest.approx(100)


def test_short_and_long_videos_are_scored_apart_and_averaged():
    target = square(4, class_index=CAT)
    pairs = [(video_of(predictions, frames=2, name=name), video_of([target], frames=2, name=name))
             for name, predictions in (("a", [target]), ("b", [target]), ("c", []))]
    scores = score(pairs).by_set({"short": ["a", "b"], "long": ["c"]})
    assert (scores["short"]["ap"], scores["long"]["ap"], scores["all"]["ap"]) == (
        pytest.approx(100), 0, pytest.approx(50))
    assert scores["all"]["ap_small"] is None
    for sets in ({"short": ["a"], "long": ["c"]}, {"short": ["a", "b"], "long": ["b", "c"]},
                 {"short": ["a", "b", "c", "d"]}):
        with pytest.raises(ValueError, match="not in exactly one"):
            score(pairs).by_set(sets)
    with pytest.raises(ValueError, match="not scored, first 'x'"):
        score(pairs).result(["a", "x"])


def test_tables_name_classes_and_measures():
    video = video_of([square(4, class_index=DOG)], frames=2)
    scores = score([(video, video)])
    assert "AP75" in scores.result().table()
    assert "dog" in scores.result().class_table()
    assert "cat" not in scores.result().class_table()


@pytest.mark.parametrize(("change", "reason"), [
    ({"score": float("nan")}, "bad-score"),
    ({"class_index": 3}, "unknown-category"),
    ({"masks": (None,)}, "frame-mismatch"),
    ({"masks": ({"size": [4, 4], "counts": b"04000"}, None)}, "size-differs"),
])
def test_predictions_that_do_not_fit_are_refused_with_the_video_named_and_count_nothing(change, reason):
    metric = TrackAP(CLASSES)
    target = square(4, class_index=CAT)
    with pytest.raises(BadInput, match=r"video 'v': track 1 of the prediction") as error:
        metric.update(video_of([target, replace(target, **change)], frames=2), video_of([target], frames=2))
    assert error.value.reason == reason
    assert not metric.videos


def test_another_size_of_frames_is_refused():
    truth = video_of([square(4, class_index=CAT)], frames=2)
    with pytest.raises(BadInput, match="size") as error:
        TrackAP(CLASSES).update(replace(truth, size=(10, 10)), truth)
    assert error.value.reason == "size-differs"
    with pytest.raises(BadInput, match="1 frames"):
        TrackAP(CLASSES).update(video_of([], frames=1), truth)
