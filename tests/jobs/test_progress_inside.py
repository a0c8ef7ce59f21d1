"""Progress inside a video: within 5 seconds of the start and never silent for 10, in process and on Ray."""

from __future__ import annotations

import itertools
import logging
import re
import time
from typing import Any

import pytest

from jobs import cache_queries, evaluate, predict
from jobs.cluster import ClusterConfig, results_of
from pipeline.progress import Place, Report, Watch
from pipeline.system import System
from tests.runs import here, scored
from tests.untrained_run import predicting, untrained_run, write_video

pytestmark = pytest.mark.slow


class SlowWorker:
    """Works for seconds on a video of as many frames."""

    def __init__(self, *, seconds: float, report: Report) -> None:
        self.seconds = seconds
        self.report = report

    def __call__(self, *, frames: int) -> dict[str, Any]:
        with Watch("film", self.report) as watch:
            for _ in watch.over("segmenting", range(frames), frames):
                time.sleep(self.seconds)
        return {"frames": frames}


@pytest.mark.long
@pytest.mark.parametrize("in_process", [True, pytest.param(False, marks=pytest.mark.ray)])
def test_places_arrive_while_the_worker_is_busy(request, in_process):
    if not in_process:
        request.getfixturevalue("cluster")
    places: list[tuple[float, Place]] = []
    results = results_of(SlowWorker, [{"frames": 5}], arguments={"seconds": 1.0}, report=lambda place: places.append(
        (time.monotonic(), place)), cluster=ClusterConfig(in_process=in_process))
    assert list(results) == [{"frames": 5}]
    ended = time.monotonic()
    shown = [(seconds, place) for seconds, place in places if place.step]
    assert len(shown) >= 3
    assert [place.done for _, place in shown] == sorted(place.done for _, place in shown)
    assert all(place.total == 5 for _, place in shown)
    assert shown[0][0] < ended - 2          # not all at the end


@pytest.fixture
def slow_clips(monkeypatch, caplog):
    """A segmenter that takes 3 seconds for each of 4 clips; and the lines of progress with their times."""
    predict_clip = System.predict_clip
    pauses = iter([3] * 4)

    def slow(*arguments, **settings):
        time.sleep(next(pauses, 0))
        return predict_clip(*arguments, **settings)

    monkeypatch.setattr(System, "predict_clip", slow)
    caplog.set_level(logging.INFO, logger="pipeline.progress")
    return caplog


def check(records: list[logging.LogRecord], started: float, verb: str, step: str) -> None:
    """The first line comes within 5 seconds, no pause is as long as 10, and frames and time left move."""
    lines = [record for record in records if record.name == "pipeline.progress"]
    assert lines[0].created - started < 5
    times = [started, *(record.created for record in lines), time.time()]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 10
    inside = [re.search(rf"{step} (\d+)/\d+ frames, left (\d+ s|unknown)", record.getMessage()) for record in lines]
    done = [int(match[1]) for match in inside if match]
    assert len(set(done)) > 1
    assert all(record.getMessage().startswith(verb) for record in lines)


@pytest.mark.long
def test_predict_shows_frames_and_time_left(slow_clips, tmp_path):
    recipe = untrained_run(tmp_path / "run")
    write_video(tmp_path / "film.mp4", 12)
    slow_clips.clear()
    started = time.time()
    predict.main(predicting(recipe, tmp_path / "film.mp4", tmp_path / "out"))
    check(slow_clips.records, started, "predicting", "film: segmenting")


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.parametrize(("verb", "step", "start"), [
    (lambda recipe: evaluate.main(scored(recipe, mode="near_online")), "segmenting", "evaluating"),
    (cache_queries.main, "view 1 of 1,", "caching")], ids=["evaluate", "cache_queries"])
def test_evaluate_and_cache_show_them_too(finished_run, slow_clips, tmp_path, verb, step, start):
    recipe = here(finished_run.copy(tmp_path / "run"))
    for part in recipe.run_folder.glob("cache/*/*"):
        part.unlink()
    slow_clips.clear()
    started = time.time()
    verb(recipe)
    check(slow_clips.records, started, start, step)
