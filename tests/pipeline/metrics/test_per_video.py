"""Laws that all metrics share: merging, names of tracks, perfect and empty predictions, one pass, no double count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.labels import VOID
from pipeline.errors import BadInput
from pipeline.files import canonical_json
from pipeline.metrics.frame_pass import score_video
from pipeline.metrics.identity import Identity
from pipeline.metrics.miou import MeanIoU
from pipeline.metrics.stq import STQ
from pipeline.metrics.track_ap import TrackAP
from pipeline.metrics.track_identity import TrackIdentity
from pipeline.metrics.video_consistency import VideoConsistency
from pipeline.metrics.vpq import VPQ
from tests.pipeline.metrics.some_tracks import scored_tracks
from tests.pipeline.metrics.some_videos import CLASSES, scored_videos, video_of

FRAME_METRICS = {
    "vpq": lambda: VPQ(CLASSES, windows=(1, 2, 3)), "stq": lambda: STQ(CLASSES), "miou": lambda: MeanIoU(CLASSES),
    "stq official": lambda: STQ(CLASSES, official_compat="vipseg"),
    "mvc": lambda: VideoConsistency(CLASSES, windows=(3, 2)), "identity": lambda: Identity(CLASSES),
}
METRICS = {**FRAME_METRICS, "track ap": lambda: TrackAP(CLASSES), "track identity": lambda: TrackIdentity(CLASSES)}
NEW = [name for name in METRICS if name != "vpq"]    # VPQ has the same test in its own file


def pairs_for(name, *, least=1, most=4):
    return scored_tracks(least=least, most=most) if name.startswith("track") else scored_videos(least=least, most=most)


def score(name, pairs):
    metric = METRICS[name]()
    for prediction, truth in pairs:
        metric.update(prediction, truth)
    return metric


@pytest.mark.parametrize("name", NEW)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_merged_parts_equal_one_pass_to_the_last_bit_in_any_order(name, data):
    pairs = data.draw(pairs_for(name, least=4))
    order = data.draw(st.permutations(range(4)))
    cut = data.draw(st.integers(0, 4))
    parts = [score(name, [pairs[i] for i in some]) for some in (order[:cut], order[cut:])]
    whole = METRICS[name]()
    for part in reversed(parts):
        whole.merge(type(part).from_json(part.to_json()))
    assert canonical_json(whole.to_json()) == canonical_json(score(name, pairs).to_json())
    assert repr(whole.result()) == repr(score(name, pairs).result())    # in repr, NaN equals NaN


@pytest.mark.parametrize("name", NEW)
def test_without_videos_there_is_no_score(name):
    result = METRICS[name]().result()
    assert result.videos == result.frames == 0
    assert set(result.summary().values()) <= {None, 0.0}
    assert "0 videos" in result.table()


@pytest.mark.parametrize("name", NEW)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_no_video_counts_twice(name, data):
    pairs = data.draw(pairs_for(name, most=1))
    once = score(name, pairs)
    again = score(name, pairs)
    with pytest.raises(BadInput, match="scored before"):
        once.update(*pairs[0])
    with pytest.raises(ValueError, match="1 videos would count twice"):
        once.merge(again)


@settings(max_examples=20, deadline=None)
@given(scored_videos(most=2))
def test_one_pass_for_all_metrics_gives_the_score_of_each_alone(pairs):
    together = {name: make() for name, make in FRAME_METRICS.items()}
    for prediction, truth in pairs:
        score_video(list(together.values()), prediction, truth)
    for name, metric in together.items():
        assert canonical_json(metric.to_json()) == canonical_json(score(name, pairs).to_json())


def test_a_refused_video_counts_in_no_metric():
    maps = np.zeros((3, 2, 2), np.int32)
    wrong = replace(video_of(maps, {0: 0}), frames=[maps[0], maps[1], np.full((2, 2), 7, np.int32)])
    together = [make() for make in FRAME_METRICS.values()]
    with pytest.raises(BadInput, match=r"frame '2' of the prediction holds the ids \[7\]"):
        score_video(together, wrong, video_of(maps, {0: 0}))
    assert all(not metric.videos for metric in together)
    together[-1].update(video_of(maps, {0: 0}), video_of(maps, {0: 0}))
    with pytest.raises(BadInput, match="scored before"):
        score_video(together, video_of(maps, {0: 0}), video_of(maps, {0: 0}))
    assert [len(metric.videos) for metric in together] == [0] * (len(together) - 1) + [1]


def test_frames_are_decoded_once_for_all_metrics():
    maps = np.zeros((3, 2, 2), np.int32)

    class Counting:
        looked = 0

        def __iter__(self):
            Counting.looked += 1
            return iter(maps)

    video = replace(video_of(maps, {0: 0}), frames=Counting())
    score_video([make() for make in FRAME_METRICS.values()], video, video_of(maps, {0: 0}))
    assert Counting.looked == 1


@settings(max_examples=10, deadline=None)
@given(scored_videos(), st.permutations(range(4)))
def test_names_of_predicted_tracks_do_not_matter(pairs, order):
    new = {VOID: VOID, **{10 + i: 5000 * (1 + n) for i, n in enumerate(order)}}
    renamed = [(replace(p, frames=[np.vectorize(new.get, otypes=[np.int32])(ids) for ids in p.frames],
                        segments={new[i]: s for i, s in p.segments.items()}), t) for p, t in pairs]
    for name in ("stq", "stq official", "miou", "mvc", "identity"):
        renamed_scores, expected = (score(name, some).result().summary() for some in (renamed, pairs))
        assert {key: value or -1 for key, value in renamed_scores.items()} == pytest.approx(
            {key: value or -1 for key, value in expected.items()})


@settings(max_examples=10, deadline=None)
@given(scored_videos())
def test_a_perfect_prediction_scores_one(pairs):
    perfect = [(truth, truth) for _, truth in pairs]
    for name in ("stq", "miou", "mvc"):
        for value in score(name, perfect).result().summary().values():
            assert value in (None, pytest.approx(100))


@settings(max_examples=10, deadline=None)
@given(scored_videos())
def test_an_empty_prediction_scores_zero(pairs):
    empty = [(replace(truth, segments={}, frames=[np.full_like(ids, VOID) for ids in truth.frames]), truth)
             for _, truth in pairs]
    for name in ("stq", "stq official", "miou", "identity"):
        assert {value for value in score(name, empty).result().summary().values() if value is not None} <= {0}
