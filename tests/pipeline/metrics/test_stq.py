"""STQ against its definition written out on dense masks, and its rules by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from model.labels import VOID
from pipeline.metrics.stq import STQ
from tests.pipeline.metrics.some_videos import CLASSES, scored_videos, video_of

CAT, DOG, SKY = range(3)


def by_definition(pairs, *, official):
    """sq, aq: every class and every pair of tracks compared as masks of the whole video."""
    common = np.zeros(3)
    union = np.zeros(3)
    void = 0
    association = 0.0
    tracks = 0
    for prediction, truth in pairs:
        t = np.stack(list(truth.frames))
        p = np.stack(list(prediction.frames))
        labelled = t != VOID
        semantic = [np.vectorize(lambda i, side=side: side.segments[i].class_index if i != VOID else 3)(ids)
                    for side, ids in ((truth, t), (prediction, p))]
        for c in range(3):
            common[c] += (labelled & (semantic[0] == c) & (semantic[1] == c)).sum()
            union[c] += (labelled & ((semantic[0] == c) | (semantic[1] == c))).sum()
        void += (labelled & (semantic[1] == 3)).sum()
        things = {i for i, s in truth.segments.items() if CLASSES.is_thing[s.class_index]}
        crowd = things & (set(list(truth.segments)[:1]) if official == "vipseg"
                          else {i for i, s in truth.segments.items() if s.is_crowd})
        counted = ~np.isin(t, list(crowd))
        for i in things - crowd:
            g = t == i
            tracks += 1
            for j, s in prediction.segments.items():
                if CLASSES.is_thing[s.class_index]:
                    predicted = (p == j) & counted
                    tpa = (g & predicted).sum()
                    association += tpa / g.sum() * tpa / (g | predicted).sum() if tpa else 0
    ious = [c / u for c, u in zip(common, union) if u] + [0.0] * bool(official and void)
    none = 0.0 if official else np.nan
    return (np.mean(ious) if ious else np.nan), (association / tracks if tracks else none)


def score(pairs, *, official=""):
    stq = STQ(CLASSES, official_compat=official)
    for prediction, truth in pairs:
        stq.update(prediction, truth)
    return stq.result()


@pytest.mark.parametrize("official", ["", "step", "vipseg"])
@settings(max_examples=40, deadline=None)
@given(pairs=scored_videos())
def test_scores_are_the_definition_written_out(pairs, official):
    relisted = [(p, replace(t, segments=dict(reversed(t.segments.items())))) for p, t in pairs]
    scores = score(relisted, official=official)
    (sq, aq) = by_definition(relisted, official=official)
    assert (scores.all.sq, scores.all.aq) == pytest.approx((sq, aq), abs=1e-9, nan_ok=True)
    assert scores.all.stq == pytest.approx(np.sqrt(sq * aq), abs=1e-9, nan_ok=True)
    for prediction, truth in relisted:
        part = scores.per_video[truth.video_id]
        expected = by_definition([(prediction, truth)], official=official)
        assert (part.sq, part.aq) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def row(text, classes, **options):
    """One frame of one row: a letter per pixel, "." void; classes: letter -> class."""
    maps = np.array([[[VOID if letter == "." else ord(letter) for letter in text]]], np.int32)
    return video_of(maps, {ord(letter): c for letter, c in classes.items()}, **options)


@pytest.mark.parametrize(("predicted", "crowd", "aq"), [
    ("aaaa....", "", 0.5),             # one of two tracks, exactly
    ("aaaa.b..", "", 0.5 + 0.5 / 16),  # and one pixel of four of the other: 1/4 times 1/4
    ("aabb....", "", 0.25),            # the one in halves: two times 2/4 times 2/4
    ("aaaaaaaa", "", 0.5),             # both joined: each 4/4 times 4/8
    ("aaaaaaaa", "y", 1.0),            # the second is crowd: its pixels count neither way
])
def test_association_by_hand(predicted, crowd, aq):
    truth = row("xxxxyyyy", {"x": CAT, "y": DOG}, crowd={ord(letter) for letter in crowd})
    assert score([(row(predicted, {"a": CAT, "b": DOG}), truth)]).all.aq == pytest.approx(aq)


def test_association_ignores_the_class_but_segmentation_does_not():
    scores = score([(row("aabb", {"a": DOG, "b": CAT}), row("xxyy", {"x": CAT, "y": DOG}))])
    assert (scores.all.aq, scores.all.sq, scores.all.stq) == (1, 0, 0)


def test_predicted_pixels_on_stuff_and_void_count_against_a_track():
    scores = score([(row("aaaaaa", {"a": CAT}), row("xxss..", {"x": CAT, "s": SKY}))])
    assert scores.all.aq == pytest.approx(2 / 6)
    assert scores.all.sq == pytest.approx((2 / 4 + 0) / 2)     # predictions on void are no error of segmentation


def test_the_official_script_loses_the_first_listed_track_and_counts_void_as_a_class():
    truth = row("xxyy", {"x": CAT, "y": DOG})
    predicted = row("aa.b", {"a": CAT, "b": DOG})
    ours = score([(predicted, truth)])
    official = score([(predicted, truth)], official="vipseg")
    assert (ours.tracks, official.tracks) == (2, 1)
    assert ours.all.sq == pytest.approx((1 + 1 / 2) / 2)
    assert official.all.sq == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert official.all.aq == pytest.approx(1 / 4)
    with pytest.raises(ValueError, match="cannot be merged"):
        STQ(CLASSES).merge(STQ(CLASSES, official_compat="step"))


def test_only_the_script_of_vipseg_ignores_the_crowds_of_the_data():
    classes = {"s": SKY, "x": CAT, "y": DOG}                     # listed in this order
    truth = row("ssxxyy", classes, crowd={ord("x")})
    predicted = row("ssxxyy", classes)
    assert [score([(predicted, truth)], official=official).tracks for official in ("", "step", "vipseg")] == [1, 1, 2]
    with pytest.raises(ValueError, match="official_compat is 'davis'"):
        STQ(CLASSES, official_compat="davis")


def test_a_video_without_tracks_has_no_association_quality():
    stuff = row("ssss", {"s": SKY})
    assert score([(stuff, stuff)]).summary() == {"stq": None, "sq": 100.0, "aq": None}
    assert "-" in score([(stuff, stuff)]).table()
    assert score([(stuff, stuff)], official="step").summary() == {"stq": 0.0, "sq": 100.0, "aq": 0.0}
