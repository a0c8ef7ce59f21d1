"""IDF1 and switches against their definitions written out on dense masks, and their rules by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings

from model.labels import VOID
from pipeline.metrics.identity import Identity
from tests.pipeline.metrics.some_videos import CLASSES, scored_videos, video_of

CAT, DOG, SKY = range(3)


def best_pairing(matches):
    """The most matches over all one-to-one pairings, by trying every one. matches: true x predicted."""
    small, large = sorted((matches, matches.T), key=len)[0], max(matches.shape)
    return max((sum(small[row, column] for row, column in enumerate(columns))
                for columns in permutations(range(large), len(small))), default=0)


def by_definition(pairs):
    """matched, true, predicted, switches: every pair of things compared as masks of a frame."""
    totals = np.zeros(4, int)
    for prediction, truth in pairs:
        targets = [i for i, s in truth.segments.items() if CLASSES.is_thing[s.class_index] and not s.is_crowd]
        things = [j for j, s in prediction.segments.items() if CLASSES.is_thing[s.class_index]]
        crowd = [i for i, s in truth.segments.items() if s.is_crowd]
        matches = np.zeros((len(targets), len(things)), int)
        last = {}
        for t, p in zip(truth.frames, prediction.frames):
            counted = ~np.isin(t, [VOID, *crowd])
            matched = set()
            for row, i in enumerate(targets):
                totals[1] += (t == i).any()
                for column, j in enumerate(things):
                    predicted = (p == j) & counted
                    if ((t == i) & predicted).sum() > 0.5 * ((t == i) | predicted).sum():
                        matches[row, column] += 1
                        matched.add(j)
                        totals[3] += last.get(i, j) != j
                        last[i] = j
            for j in things:
                ignored = ((p == j) & ~counted).sum() > 0.5 * (p == j).sum()
                totals[2] += (p == j).any() and (j in matched or not ignored)
        totals[0] += best_pairing(matches)
    return totals.tolist()


def score(pairs):
    metric = Identity(CLASSES)
    for prediction, truth in pairs:
        metric.update(prediction, truth)
    return metric.result()


def counts(scores):
    return [scores.matched, scores.true, scores.predicted, scores.switches]


@settings(max_examples=60, deadline=None)
@given(pairs=scored_videos())
def test_scores_are_the_definition_written_out(pairs):
    scores = score(pairs)
    matched, true, predicted, switches = by_definition(pairs)
    assert counts(scores) == [matched, true, predicted, switches]
    expected = [2 * matched / (true + predicted) if true + predicted else np.nan,
                matched / predicted if predicted else np.nan, matched / true if true else np.nan]
    assert [scores.idf1, scores.idp, scores.idr] == pytest.approx(expected, nan_ok=True)


def strip(rows, classes, **options):
    """Frames of one row each: a letter per pixel, "." void; classes: letter -> class."""
    maps = np.array([[[VOID if letter == "." else ord(letter) for letter in row]] for row in rows], np.int32)
    return video_of(maps, {ord(letter): c for letter, c in classes.items()}, **options)


TRUE = ["xxxyyy"] * 4
THINGS = {"x": CAT, "y": CAT}
PREDICTED = {"a": CAT, "b": CAT, "c": DOG, "s": SKY}


@pytest.mark.parametrize(("predicted", "matched", "seen", "switches"), [
    (["aaabbb"] * 4, 8, 8, 0),
    (["aaabbb", "aaabbb", "bbbaaa", "bbbaaa"], 4, 8, 2),             # both change places once
    (["aaabbb", "bbbaaa", "aaabbb", "bbbaaa"], 4, 8, 6),             # and three times
    (["aaabbb", "ssssss", "ssssss", "bbbaaa"], 2, 4, 2),             # a switch after any time out of sight
    (["aaabbb", "cccbbb", "aaabbb", "aaabbb"], 7, 8, 2),             # there and back; the class does not matter
    (["aaassb", "aaasbb", "aaabbb", "aaabbb"], 7, 8, 0),             # one of three pixels is no match
    (["aaaaaa"] * 4, 0, 4, 0),                                       # half of the union is no match
    (["ssssss"] * 4, 0, 0, 0),
])
def test_matches_by_hand(predicted, matched, seen, switches):
    scores = score([(strip(predicted, PREDICTED), strip(TRUE, THINGS))])
    assert counts(scores) == [matched, 8, seen, switches]
    assert scores.things == 2


@pytest.mark.parametrize(("truth", "predicted", "crowd", "expected"), [
    ("xxx...", "aaaabb", "", [1, 1, 1, 0]),      # what lies on void is in no union, and no false object
    ("xxxyyy", "aaaabb", "y", [1, 1, 1, 0]),     # nor what lies on crowd, which is no target
    ("xx....", "sbbbbb", "", [0, 1, 0, 0]),      # mostly on void and unmatched: not counted
    ("xxssss", "aaccss", "", [1, 1, 2, 0]),      # on stuff it counts
])
def test_void_crowd_and_stuff_by_hand(truth, predicted, crowd, expected):
    true = strip([truth], {**THINGS, "s": SKY}, crowd={ord(letter) for letter in crowd})
    assert counts(score([(strip([predicted], PREDICTED), true)])) == expected


def test_the_summary_is_in_percent_and_the_table_has_it():
    scores = score([(strip(["aaabbb", "aaabbb", "bbbaaa", "bbbaaa"], PREDICTED), strip(TRUE, THINGS))])
    assert scores.summary() == {"idf1": 50.0, "idp": 50.0, "idr": 50.0, "switches": 2}
    assert scores.table().splitlines()[1].split() == ["all", "50.00", "50.00", "50.00", "2"]
    stuff = strip(["ssss"], {"s": SKY})
    nothing = score([(stuff, stuff)])
    assert nothing.summary() == {"idf1": None, "idp": None, "idr": None, "switches": None}
    assert nothing.table().splitlines()[1].split() == ["all", "-", "-", "-", "-"]


@settings(max_examples=10, deadline=None)
@given(scored_videos())
def test_a_perfect_prediction_has_no_switch_whatever_its_ids_are(pairs):
    plain = [(truth, replace(truth, segments={i: replace(s, is_crowd=False) for i, s in truth.segments.items()}))
             for _, truth in pairs]
    renamed = [(replace(p, frames=[np.where(ids == VOID, VOID, 90 - ids) for ids in p.frames],
                        segments={90 - i: s for i, s in p.segments.items()}), t) for p, t in plain]
    for some in (plain, renamed):
        assert score(some).summary()["idf1"] in (None, pytest.approx(100))
        assert score(some).switches == 0
