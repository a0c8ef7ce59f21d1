"""Every nth frame between two times, with the names and times that the frames have in the whole video."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.clips import FolderSource
from pipeline.datasets.excerpt import Excerpt
from pipeline.datasets.raw_video import RawVideo
from pipeline.errors import BadInput
from pipeline.images import encode_jpeg
from tests.untrained_run import moving_square, write_video


@pytest.fixture
def film(tmp_path):
    return RawVideo(write_video(tmp_path / "film.mp4", 12, fps=4))


def shades(frames: list[np.ndarray]) -> list[int]:
    return [round(float(frame[40:, :, 2].mean())) for frame in frames]


@pytest.mark.parametrize(("choice", "expected"), [
    ({}, range(12)), ({"every": 5}, [0, 5, 10]), ({"start": 1.0}, range(4, 12)), ({"end": 1.0}, range(4)),
    ({"every": 2, "start": 0.75, "end": 2.25}, [3, 5, 7]), ({"start": 2.7}, [11])])
def test_the_chosen_frames_are_read(film, choice, expected):
    excerpt = Excerpt(film, video_id="mine", **choice)
    assert excerpt.video_id == "mine"
    assert excerpt.indices == list(expected)
    assert excerpt.frame_names == tuple(f"{index:06d}" for index in expected)
    assert excerpt.times == pytest.approx([index / 4 for index in expected], abs=1e-3)
    assert shades(excerpt.frames(0, len(excerpt.indices))) == pytest.approx([40 + 10 * i for i in expected], abs=3)


def test_skipping_frames_goes_on_with_the_same_decoder_and_overlaps_are_not_read_again(film):
    excerpt = Excerpt(film, video_id="mine", every=2)
    excerpt.frames(0, 3)
    child = film._child.pid
    assert shades(excerpt.frames(2, 6)) == pytest.approx([80, 100, 120, 140], abs=3)
    assert film._child.pid == child


def test_a_folder_has_the_times_of_its_frame_rate(tmp_path):
    for index in range(6):
        (tmp_path / f"{index}.jpg").write_bytes(encode_jpeg(moving_square(index)))
    excerpt = Excerpt(FolderSource(tmp_path), video_id="mine", fps=2, start=1)
    assert excerpt.frame_names == ("2", "3", "4", "5")
    assert excerpt.times == (1.0, 1.5, 2.0, 2.5)
    assert excerpt.span == (1.0, 3.0)


def test_times_after_the_end_are_refused_with_the_length(film):
    with pytest.raises(BadInput, match=r"no frame between 2\.8 and 2\.9 seconds; the last one is at 2\.750 seconds"):
        Excerpt(film, video_id="mine", start=2.8, end=2.9)
    with pytest.raises(BadInput, match=r"no frame from 10 seconds on; the last one is at 2\.750 seconds") as error:
        Excerpt(film, video_id="mine", start=10)
    assert error.value.reason == "no-frames"
