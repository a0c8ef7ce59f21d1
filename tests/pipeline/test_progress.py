"""The status line says what was done, what was skipped and why, what is left, and where the workers are."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest
import torch

from model.contracts import PanopticVideo, VideoResults
from pipeline.progress import Place, Progress, Watch
from pipeline.spool import TensorSpool


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("pipeline.progress.time.monotonic", clock)
    return clock


def test_the_line_counts_done_and_skipped_by_reason(clock):
    with Progress("sharding", 10, every=1e9) as progress:
        progress.update(4, {"corrupt-image": 1})
        clock.now += 10
        assert progress.line() == ("sharding 5/10 videos | done 4 | skipped 1 (1 corrupt-image) | 0.5 videos/s | "
                                   "left 10 s")


def test_the_line_says_where_each_worker_is_in_its_video(clock):
    with Progress("predicting", 2, every=1e9) as progress:
        for place in (Place("a", "checking", 40), Place("b", "segmenting", 30, 120, 10.0), Place("c", "drawing", 0, 9)):
            progress.report(place)
        assert progress.line().endswith("left unknown | a: checking, 40 frames | b: segmenting 30/120 frames, left 30 s"
                                        " | c: drawing 0/9 frames, left unknown")
        progress.report(Place("d", "drawing", 1, 9, 1.0))
        assert progress.line().endswith(" | 1 more")
        progress.report(Place("a", ""))
        assert "a: " not in progress.line()


def test_videos_that_a_worker_has_left_count_before_their_shard_comes_in(clock):
    with Progress("caching", 10, passes=2, every=1e9) as progress:
        for video in "abab":
            progress.report(Place(video, "view"))
            progress.report(Place(video, ""))
        clock.now += 4
        assert progress.line() == "caching 2/10 videos | done 0 | skipped 0 | 0.5 videos/s | left 16 s"
        progress.update(3)
        assert progress.line() == "caching 3/10 videos | done 3 | skipped 0 | 0.8 videos/s | left 9 s"


def test_a_line_comes_at_once_then_every_so_often_without_any_call_and_once_at_the_end(caplog):
    caplog.set_level(logging.INFO)
    with Progress("sharding", 3, every=3600) as progress:
        assert len(caplog.records) == 1
        progress.update(3)
    assert len(caplog.records) == 2
    caplog.clear()
    with Progress("sharding", 3, every=0.05):
        time.sleep(0.5)     # as long as a clip may take
    assert len(caplog.records) >= 4


def test_a_thread_ends_with_its_block_even_after_an_error(caplog):
    with pytest.raises(ValueError, match="stop"), Progress("sharding", 3, every=0.01):
        raise ValueError("stop")
    caplog.set_level(logging.INFO)
    caplog.clear()
    time.sleep(0.1)
    assert caplog.records == []


def test_a_watch_reports_the_start_of_a_step_and_then_once_a_second(clock):
    places = []
    with Watch("film", places.append) as watch:
        for _ in watch.over("segmenting", range(10), 20, frames=lambda _: 2):
            clock.now += 0.4
        watch.at("writing", 0, 20)
    assert [(place.step, place.done, place.total) for place in places] == [
        ("segmenting", 0, 20), ("segmenting", 6, 20), ("segmenting", 12, 20), ("segmenting", 18, 20),
        ("writing", 0, 20), ("", 0, None)]
    assert str(places[1]) == "film: segmenting 6/20 frames, left 3 s"


def test_watched_results_are_the_results(clock):
    maps = [np.full((2, 2), value) for value in range(3)]
    video = PanopticVideo(video_id="v", frame_names=("a", "b", "c"), frames=maps, segments={})
    places = []
    watched = Watch("v", places.append).over_results("scoring", VideoResults(panoptic=video))
    assert watched.semantic is None
    for _ in range(2):
        assert all((ids == other).all() for ids, other in zip(watched.panoptic.frames, maps, strict=True))
    assert places[0] == Place("v", "scoring", 0, 3)


def test_a_spool_notes_what_was_read():
    noted = []
    spool = TensorSpool(noted=noted.append)
    for frames in (2, 2, 1):
        spool.append((torch.zeros(3), frames))
    assert len(list(spool)) == 3
    assert noted == [2, 4, 5]
