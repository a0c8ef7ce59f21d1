"""Laws of VPQ, and its numbers against the definition written out window by window."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.contracts import VideoSegment
from model.labels import VOID
from pipeline.errors import BadInput
from pipeline.files import canonical_json
from pipeline.metrics.vpq import PROTOCOLS, VPQ
from tests.pipeline.metrics.some_videos import CLASSES, scored_videos, video_of

WINDOWS = (1, 2, 3, 5)


def by_definition(pairs, windows=WINDOWS):
    """iou, tp, fp, fn per (window, class), from stacked windows and all pairs of tubes; shares no code with VPQ."""
    counted = defaultdict(lambda: [0.0, 0, 0, 0])
    for prediction, truth in pairs:
        trues = np.stack(list(truth.frames))
        predicted_maps = np.stack(list(prediction.frames))
        for k in windows:
            for start in range(len(trues) - k + 1):
                t = trues[start:start + k]
                p = predicted_maps[start:start + k]
                tubes, predicted_tubes = ({i: ids == i for i in np.unique(ids).tolist() if i != VOID} for ids in (t, p))
                matched = set()
                for i, tube in tubes.items():
                    segment = truth.segments[i]
                    if segment.is_crowd:
                        continue
                    for j, predicted in predicted_tubes.items():
                        union = (tube | predicted).sum() - (predicted & (t == VOID)).sum()
                        same = prediction.segments[j].class_index == segment.class_index
                        if same and (tube & predicted).sum() > union / 2:
                            counted[k, segment.class_index][0] += (tube & predicted).sum() / union
                            counted[k, segment.class_index][1] += 1
                            matched |= {("true", i), ("predicted", j)}
                    counted[k, segment.class_index][3] += ("true", i) not in matched
                for j, predicted in predicted_tubes.items():
                    c = prediction.segments[j].class_index
                    crowd = [i for i in tubes if truth.segments[i].is_crowd and truth.segments[i].class_index == c]
                    free = predicted & np.isin(t, [VOID, *crowd])
                    counted[k, c][2] += ("predicted", j) not in matched and free.sum() <= predicted.sum() / 2
    return counted


def score(pairs, windows=WINDOWS):
    vpq = VPQ(CLASSES, windows=windows)
    for prediction, truth in pairs:
        vpq.update(prediction, truth)
    return vpq


def numbers(vpq):
    return {(k, c): (row.iou, row.tp, row.fp, row.fn) for k, rows in vpq.result().per_class.items()
            for c, row in enumerate(rows)}


@settings(max_examples=60, deadline=None)
@given(scored_videos())
def test_every_count_is_the_definition_written_out(pairs):
    expected = by_definition(pairs)
    counted = numbers(score(pairs))
    for key, (iou, *counts) in counted.items():
        assert list(counts) == expected[key][1:]
        assert iou == pytest.approx(expected[key][0], abs=1e-12)


@pytest.mark.parametrize(("predicted_row", "outcome"), [
    ("aaaa....", (1.0, 1, 0, 0)),      # exactly the object
    ("aaa.....", (0.75, 1, 0, 0)),
    ("aa......", (0.0, 0, 1, 1)),      # half is not more than half
    ("aaaaa...", (0.8, 1, 0, 0)),      # one pixel on background
    ("aaaa...a", (1.0, 1, 0, 0)),      # one pixel on void, which is left out of the union
    ("aaaabbb.", (1.0, 1, 0, 0)),      # a second prediction, two of its three pixels on crowd and none on void
    ("aaaabb..", (1.0, 1, 1, 0)),      # half on crowd is not more than half
    ("......bb", (0.0, 0, 0, 1)),      # void and crowd count together
    ("........", (0.0, 0, 0, 1)),
])
def test_the_rules_by_hand(predicted_row, outcome):
    letters = {".": VOID, "o": 0, "s": 1, "c": 2, "a": 10, "b": 11}
    truth, predicted = (np.array([[[letters[x] for x in row]]], np.int32) for row in ("ooooscc.", predicted_row))
    cat = 0
    sky = 2
    scored = score([(video_of(predicted, {10: cat, 11: cat}), video_of(truth, {0: cat, 1: sky, 2: cat}, crowd={2}))])
    assert numbers(scored)[1, cat] == outcome


@settings(max_examples=20, deadline=None)
@given(scored_videos())
def test_a_perfect_prediction_scores_one(pairs):
    perfect = score([(truth, truth) for _, truth in pairs])
    assert all(row.fp == row.fn == 0 for rows in perfect.result().per_class.values() for row in rows)
    for k in WINDOWS:
        if any(row.tp for row in perfect.result().per_class[k]):
            assert perfect.result().of(k).all == 1


@settings(max_examples=20, deadline=None)
@given(scored_videos())
def test_time_has_no_direction(pairs):
    backwards = [tuple(replace(side, frames=list(side.frames)[::-1]) for side in pair) for pair in pairs]
    assert numbers(score(backwards)) == numbers(score(pairs))


@settings(max_examples=20, deadline=None)
@given(scored_videos(), st.permutations(range(4)))
def test_names_of_predicted_tracks_do_not_matter(pairs, order):
    def renamed(video):
        new = {VOID: VOID, **{10 + i: 5000 * (1 + n) for i, n in enumerate(order)}}
        frames = [np.vectorize(new.get, otypes=[np.int32])(ids) for ids in video.frames]
        return replace(video, frames=frames, segments={new[i]: s for i, s in video.segments.items()})

    assert numbers(score([(renamed(p), t) for p, t in pairs])) == numbers(score(pairs))


@settings(max_examples=20, deadline=None)
@given(scored_videos(least=5, most=5), st.permutations(range(5)), st.integers(0, 5))
def test_merged_parts_equal_one_pass_to_the_last_bit_in_any_order(pairs, order, cut):
    shuffled = [pairs[i] for i in order]
    parts = [score(shuffled[:cut]), score(shuffled[cut:])]
    whole = VPQ(CLASSES, windows=WINDOWS)
    for part in reversed(parts):
        whole.merge(VPQ.from_json(part.to_json()))
    assert canonical_json(whole.to_json()) == canonical_json(score(pairs).to_json())
    assert whole.result() == score(pairs).result()


def test_short_videos_add_nothing_to_long_windows():
    maps = np.zeros((3, 4, 4), np.int32)
    result = score([(video_of(maps, {0: 0}), video_of(maps, {0: 0}))], windows=(1, 3, 4)).result()
    assert [result.per_class[k][0].tp for k in (1, 3, 4)] == [3, 1, 0]
    assert result.of(3).all == 1
    assert np.isnan(result.of(4).all)
    assert np.isnan(result.mean((1, 4)).all)
    assert result.summary((1, 3))["vpq_by_window"] == {"1": 100.0, "3": 100.0, "4": None}


def test_a_switch_of_identity_costs_only_windows_that_contain_it():
    truth = np.zeros((12, 4, 4), np.int32)
    predicted = truth.copy()
    predicted[6:] = 1
    result = score([(video_of(predicted, {0: 0, 1: 0}), video_of(truth, {0: 0}))], windows=(1, 2, 12)).result()
    assert result.of(1).all == 1
    assert result.per_class[2][0].fn == 1
    assert result.of(12).all == 0


def two_frames(**changes):
    maps = np.zeros((2, 4, 4), np.int32)
    return replace(video_of(maps, {0: 0}), **changes)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"frames": [np.zeros((4, 4), np.int32)] * 3}, "frame-mismatch"),
    ({"frames": [np.zeros((4, 4), np.int32)]}, "size-differs"),
    ({"frames": [np.zeros((4, 5), np.int32)] * 2}, "size-differs"),
    ({"frame_names": ("0",)}, "frame-mismatch"),
    ({"video_id": "another"}, "frame-mismatch"),
    ({"frames": [np.zeros((4, 4), np.int32), np.full((4, 4), 7, np.int32)]}, "unlisted-id"),
    ({"segments": {i: VideoSegment(class_index=0, track=i) for i in (0, 5)}}, "empty-segment"),
    ({"segments": {0: VideoSegment(class_index=3, track=0)}}, "unknown-category"),
])
def test_predictions_that_do_not_fit_are_refused_with_the_video_named_and_count_nothing(changes, reason):
    vpq = VPQ(CLASSES, windows=WINDOWS)
    with pytest.raises(BadInput, match=r"video 'v'") as error:
        vpq.update(two_frames(**changes), two_frames())
    assert error.value.reason == reason
    assert vpq.to_json() == VPQ(CLASSES, windows=WINDOWS).to_json()


def test_an_unlisted_id_names_its_frame():
    with pytest.raises(BadInput, match=r"frame '1' of the prediction holds the ids \[7\]"):
        VPQ(CLASSES).update(two_frames(frames=[np.zeros((4, 4), np.int32), np.full((4, 4), 7, np.int32)]), two_frames())


def test_no_video_counts_twice():
    once = score([(two_frames(), two_frames())])
    again = score([(two_frames(), two_frames())])
    with pytest.raises(BadInput, match="scored before"):
        once.update(two_frames(), two_frames())
    with pytest.raises(ValueError, match="count twice, first 'v'"):
        once.merge(again)
    with pytest.raises(ValueError, match="cannot be merged"):
        once.merge(VPQ(CLASSES, windows=(1,)))


def test_both_protocols_are_printed():
    maps = np.zeros((9, 4, 4), np.int32)
    result = VPQ(CLASSES)
    result.update(video_of(maps, {0: 0}), video_of(maps, {0: 0}))
    table = result.result().table()
    assert all(f"mean {', '.join(map(str, windows))}" in table for windows in PROTOCOLS)
    assert "cat" in result.result().class_table()
