"""Draws of videos: a score in a draw is the score of those videos, each as often as it was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from model.contracts import PanopticVideo, VideoResults, VideoSegment
from model.labels import ClassInfo, ClassTable, panoptic_id
from pipeline.metrics.bootstrap import draws_of, numbers_of, resampled
from pipeline.metrics.scorecard import Scorecard, headline

CLASSES = ClassTable("three", tuple(ClassInfo(number, str(number), number < 2, (number, 0, 0)) for number in range(3)))
WINDOWS = (1, 2, 4, 6)


def video(name: str, seed: int, *, shift: int) -> PanopticVideo:
    """Seven frames with a moving thing on stuff; `shift` moves the thing away from the truth."""
    thing = int(panoptic_id(0, 1))
    stuff = int(panoptic_id(2, 0))
    frames = []
    for frame in range(7):
        ids = np.full((16, 16), stuff, np.int32)
        left = (seed + frame + shift) % 10
        ids[4:9, left:left + 5] = thing
        frames.append(ids)
    return PanopticVideo(video_id=name, frame_names=tuple(f"{n}" for n in range(7)), frames=frames, segments={
        thing: VideoSegment(class_index=0, track=1), stuff: VideoSegment(class_index=2, track=0)})


def card_of(name: str, seed: int, shift: int) -> Scorecard:
    card = Scorecard(CLASSES, ("panoptic",), windows=WINDOWS)
    card.update(VideoResults(panoptic=video(name, seed, shift=shift)),
                VideoResults(panoptic=video(name, seed, shift=0)))
    return card


def test_a_draw_counts_each_video_as_often_as_it_was_drawn():
    cards = {f"v{n}": card_of(f"v{n}", n, shift=n) for n in range(4)}
    for number, drawn in resampled(cards, ["vpq", "vpq_k4", "stq", "miou"], draws=5).items():
        for value, times in zip(drawn, draws_of(4, draws=5), strict=True):
            plain = Scorecard(CLASSES, ("panoptic",), windows=WINDOWS)
            for index, count in enumerate(times):
                for copy in range(count):
                    plain.update(VideoResults(panoptic=video(f"{index}-{copy}", index, shift=index)),
                                 VideoResults(panoptic=video(f"{index}-{copy}", index, shift=0)))
            assert value == pytest.approx(numbers_of(headline(plain.scores()))[number], rel=1e-12)


def test_every_draw_has_as_many_videos_as_there_are_and_is_the_same_for_all_systems():
    draws = draws_of(9, draws=50)
    assert set(draws.sum(1)) == {9}
    assert np.array_equal(draws, draws_of(9, draws=50))
    assert len(np.unique(draws, axis=0)) > 40


def test_a_score_that_was_not_counted_is_refused_with_those_that_were():
    with pytest.raises(ValueError, match="no number 'ap' among the scores; choose one of vpq"):
        resampled({"v": card_of("v", 0, 0)}, ["vpq", "ap"])
