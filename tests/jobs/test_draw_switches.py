"""`draw_switches` draws two results of a video below each other, and marks the switches that each has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs import draw_switches
from jobs.draw_switches import SwitchesLine
from jobs.reporting.side_by_side import MARK, chosen_frames, marked
from pipeline.images import decode_image
from pipeline.metrics.identity import Switch
from tests.jobs.reporting.planted import exchanged, scored_with_faults


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run in which things exchange their ids, and one of the same videos without a fault."""
    folder = tmp_path_factory.mktemp("two")
    return (scored_with_faults(folder / "faulty", lambda video: exchanged(video, frame=3)),
            scored_with_faults(folder / "faultless", lambda video: video))


def red(picture: np.ndarray) -> int:
    return int((picture == MARK).all(-1).sum())


def test_switches_are_marked_in_the_row_of_the_system_that_has_them(runs):
    faulty, faultless = runs
    line = SwitchesLine(first="predictions", second=str(faultless.scores_root / "predictions"), videos=1, frames=4)
    ((path, switches),) = draw_switches.main(faulty, line)["switches"].items()
    assert switches[0] > switches[1] == 0
    truth, first, second = np.array_split(decode_image(Path(path).read_bytes()), 3)
    assert red(first) > 0
    assert red(truth) == red(second) == 0


def test_a_result_beside_itself_is_named_apart(runs):
    faulty, _ = runs
    line = SwitchesLine(first="predictions", second="predictions", videos=9)
    assert all(first == second for first, second in draw_switches.main(faulty, line)["switches"].values())


def test_an_evaluation_that_is_not_there_is_named_beside_those_that_are(runs):
    with pytest.raises(FileNotFoundError, match="This run has these scores: predictions"):
        draw_switches.main(runs[0], SwitchesLine(first="predictions"))
    with pytest.raises(ValueError, match="--videos 0"):
        draw_switches.main(runs[0], replace(SwitchesLine(), videos=0))


def test_frames_around_switches_come_before_others():
    switch = Switch(frame=7, thing=1, before=2, after=3, before_frame=4)
    assert chosen_frames([], 9, most=3) == [0, 4, 8]
    assert chosen_frames([switch], 9, most=4) == [0, 4, 7, 8]
    assert chosen_frames([switch], 9, most=1) == [4]
    assert chosen_frames([], 2, most=6) == [0, 1]


def test_a_box_lies_around_the_mask():
    mask = np.zeros((40, 60), np.uint8)
    mask[20:25, 30:33] = 1
    rows, columns = np.nonzero((marked(np.zeros((40, 60, 3), np.uint8), mask) == MARK).all(-1))
    assert rows.min() < 20 <= 25 <= rows.max()
    assert columns.min() < 30 <= 33 <= columns.max()
