"""IDF1 and switches of tracks against their definitions on dense masks, and the choice of the threshold."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools import mask as run_lengths

from pipeline.metrics.track_identity import THRESHOLDS, TrackIdentity
from tests.pipeline.metrics.some_tracks import GRID, scored_tracks, track_of, video_of
from tests.pipeline.metrics.some_videos import CLASSES
from tests.pipeline.metrics.test_identity import best_pairing


def dense(track, frame):
    """The mask of a track in a frame, H W bool; empty where it is absent."""
    mask = track.masks[frame]
    return run_lengths.decode(mask).astype(bool) if mask else np.zeros((1, 1), bool)


def overlap(one, other):
    if not one.any() or not other.any():
        return 0.0
    return (one & other).sum() / (one | other).sum()


def best_pairs(ious):
    """Every set of pairs (target, predicted) above a half that has the largest sum of IoUs, by trying all pairings."""
    count = max(ious.shape, default=0)
    padded = np.zeros((count, count))
    padded[:ious.shape[0], :ious.shape[1]] = np.where(ious > 0.5, ious - 0.5, 0)
    sums = {order: sum(padded[i, j] for i, j in enumerate(order)) for order in permutations(range(count))}
    best = max(sums.values())
    return {tuple((i, j) for i, j in enumerate(order) if padded[i, j] > 0) for order, total in sums.items()
            if total > best - 1e-9}


def by_definition(pairs, threshold):
    """matched, true, predicted, switches; the last is None where equal IoUs leave several best pairings."""
    totals = np.zeros(4, int)
    unique = True
    for prediction, truth in pairs:
        kept = [track for track in prediction.tracks if track.score >= threshold]
        targets = [track for track in truth.tracks if not track.is_crowd]
        crowds = [track for track in truth.tracks if track.is_crowd]
        matches = np.zeros((len(targets), len(kept)), int)
        last = {}
        for frame in range(len(truth.frame_names)):
            ious = np.array([[overlap(dense(t, frame), dense(p, frame)) for p in kept] for t in targets])
            ious = ious.reshape(len(targets), len(kept))
            matches += ious > 0.5
            totals[1] += sum(dense(t, frame).any() for t in targets)
            for column, p in enumerate(kept):
                mask = dense(p, frame)
                covered = mask.any() and any((mask & dense(c, frame)).sum() > 0.5 * mask.sum() for c in crowds)
                totals[2] += mask.any() and ((ious[:, column] > 0.5).any() or not covered)
            pairings = best_pairs(ious)
            unique &= len(pairings) == 1
            for target, column in pairings.pop():
                totals[3] += last.get(target, column) != column
                last[target] = column
        totals[0] += best_pairing(matches)
    return [*totals[:3].tolist(), int(totals[3]) if unique else None]


def few(pairs):
    """The same videos with at most six predicted tracks, so that every pairing can be tried."""
    return [(video_of(p.tracks[:6], frames=len(p.frame_names), name=p.video_id), t) for p, t in pairs]


def scored(pairs):
    metric = TrackIdentity(CLASSES)
    for prediction, truth in pairs:
        metric.update(prediction, truth)
    return metric


@settings(max_examples=25, deadline=None)
@given(pairs=scored_tracks())
def test_counts_at_every_threshold_are_the_definition_written_out(pairs):
    pairs = few(pairs)
    records = [record["counts"] for _, record in scored(pairs).in_order()]
    for index in (0, 3, 7):
        found = np.sum([counts[index] for counts in records], axis=0).tolist()
        expected = by_definition(pairs, THRESHOLDS[index])
        assert found[:3] == expected[:3]
        assert expected[3] in (None, found[3])


def box(frames, left):
    """A square of two blocks in each of the frames, or None where left is None."""
    masks = np.zeros((frames, GRID, GRID), bool)
    for frame, x in enumerate(left):
        if x is not None:
            masks[frame, 2:4, x:x + 2] = True
    return masks


def test_the_threshold_with_the_best_idf1_is_reported():
    truth = video_of([track_of(box(3, [0, 1, 2]), class_index=0)], frames=3)
    predicted = video_of([track_of(box(3, [0, 1, 2]), class_index=0, score=0.55),
                          track_of(box(3, [5, 5, 5]), class_index=0, score=0.45),
                          track_of(box(3, [0, 1, 2]), class_index=1, score=0.2)], frames=3)
    scores = scored([(predicted, truth)]).result()
    assert scores.threshold == 0.5
    assert scores.summary() == {"track_idf1": 100.0, "track_idp": 100.0, "track_idr": 100.0, "track_switches": 0}
    assert "tracks of a score from 0.5" in scores.table()


@pytest.mark.parametrize(("first", "second", "switches", "idf1"), [
    ([0, 0, 0, 0], [5, 5, 5, 5], 0, 100), ([0, 0, 5, 5], [5, 5, 0, 0], 2, 50),
    ([0, 5, None, None], [5, 0, None, None], 2, 100 / 3),
])
def test_switches_of_tracks_by_hand(first, second, switches, idf1):
    truth = video_of([track_of(box(4, [x] * 4), class_index=0) for x in (0, 5)], frames=4)
    predicted = video_of([track_of(box(4, path), class_index=0, score=0.9) for path in (first, second)], frames=4)
    scores = scored([(predicted, truth)]).result()
    assert (scores.switches, round(100 * scores.idf1, 3)) == (switches, round(idf1, 3))


def test_what_lies_on_a_crowd_counts_neither_way():
    truth = video_of([track_of(box(1, [0]), class_index=0), track_of(box(1, [5]), class_index=1, is_crowd=True)],
                     frames=1)
    predicted = video_of([track_of(box(1, [x]), class_index=0, score=0.9) for x in (0, 5)], frames=1)
    scores = scored([(predicted, truth)]).result()
    assert (scores.things, scores.true, scores.predicted, scores.idf1) == (1, 1, 1, 1.0)
