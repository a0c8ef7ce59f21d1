import json

import numpy as np
import pytest
from hypothesis import given, settings

from model.contracts import VideoResults
from pipeline.errors import BadInput
from pipeline.metrics.scorecard import Scorecard, headline
from pipeline.metrics.track_ap_scores import sets_table
from tests.pipeline.metrics.some_tracks import boxes, track_of
from tests.pipeline.metrics.some_tracks import video_of as tracks_of
from tests.pipeline.metrics.some_videos import CLASSES, scored_videos, semantic

WINDOWS = (1, 2, 4, 6, 8)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        (a is None and b is None) or a == pytest.approx(b) if not isinstance(a, dict) else same(a, b)
        for a, b in ((one[key], other[key]) for key in one))


@given(scored_videos(most=3))
@settings(max_examples=15, deadline=None)
def test_every_number_is_that_of_its_metric_alone(pairs):
    card = Scorecard(CLASSES, ("panoptic", "semantic"), windows=WINDOWS)
    alone = {name: type(metric)(CLASSES) for metrics in card.metrics.values() for name, metric in metrics.items()}
    for predicted, truth in pairs:
        card.update(VideoResults(panoptic=predicted, semantic=semantic(predicted)), VideoResults(panoptic=truth))
        for name, metric in alone.items():
            metric.update(semantic(predicted) if name in ("miou", "mvc") else predicted, truth)
    expected = {key: value for metric in alone.values() for key, value in metric.result().summary().items()}
    scores = headline(card.scores())
    assert {"vpq", "stq", "sq", "aq", "idf1", "idp", "idr", "switches", "miou", "mvc8", "mvc16",
            "vpq_with_8"} <= scores.keys()
    assert all(same({key: scores[key]}, {key: expected[key]}) for key in expected if key != "vpq_by_window")


def test_parts_merged_through_json_are_the_whole():
    rng = np.random.default_rng(3)
    pairs = [tuple(tracks_of([track_of(boxes(rng, 2), class_index=0, score=0.5)], frames=2, name=str(video))
                   for _ in range(2)) for video in range(4)]
    whole = Scorecard(CLASSES, ("tracks",), windows=WINDOWS)
    parts = []
    for predicted, truth in pairs:
        parts.append(Scorecard(CLASSES, ("tracks",), windows=WINDOWS))
        for card in (whole, parts[-1]):
            card.update(VideoResults(tracks=predicted), VideoResults(tracks=truth))
    merged = Scorecard(CLASSES, ("tracks",), windows=WINDOWS)
    for part in reversed(parts):
        merged.merge(Scorecard.from_json(json.loads(json.dumps(part.to_json()))))
    assert same(headline(merged.scores()), headline(whole.scores()))
    assert {"ap", "track_idf1", "track_switches"} <= headline(whole.scores()).keys()
    assert headline(whole.scores())["ap"] is not None
    with pytest.raises(BadInput, match="scored before"):
        whole.update(VideoResults(tracks=pairs[0][0]), VideoResults(tracks=pairs[0][1]))


def test_official_quirks_reach_their_metrics_and_survive_json():
    plain = Scorecard(CLASSES, ("panoptic",), windows=WINDOWS)
    officially = Scorecard(CLASSES, ("panoptic",), windows=WINDOWS, stq_compat="vipseg", mvc_compat=True)
    quirks = [(card.metrics["panoptic"]["stq"].official_compat, card.metrics["panoptic"]["mvc"].official_compat)
              for card in (plain, officially)]
    assert quirks == [("", False), ("vipseg", True)]
    again = Scorecard.from_json(json.loads(json.dumps(officially.to_json())))
    officially.merge(again)
    with pytest.raises(ValueError, match="score all parts with the same two"):
        plain.merge(again)


def test_videos_that_were_not_scored_are_left_out_of_their_set():
    card = Scorecard(CLASSES, ("tracks",), windows=WINDOWS)
    rng = np.random.default_rng(3)
    for video in "abc":
        target = [track_of(boxes(rng, 2), class_index=0, score=0.5)]
        predicted = tracks_of(target if video != "c" else [], frames=2, name=video)
        card.update(VideoResults(tracks=predicted), VideoResults(tracks=tracks_of(target, frames=2, name=video)))
    scores = card.ap_by_set({"short": ["a", "b", "skipped"], "long": ["c"]})
    assert [round(scores[name]["ap"]) for name in ("short", "long", "all")] == [100, 0, 50]
    assert [line.split()[:2] for line in sets_table(scores).splitlines()[1:]] == [
        ["short", "100.00"], ["long", "0.00"], ["all", "50.00"]]


def test_an_unknown_result_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="choose from panoptic, tracks and semantic"):
        Scorecard(CLASSES, ("depth",), windows=WINDOWS)
