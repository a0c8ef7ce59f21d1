"""Overlays of whole videos: titles over panes, sizes that people can see, pictures as pictures."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from model.contracts import PanopticVideo, VideoSegment
from model.labels import ClassInfo, ClassTable
from pipeline.visualise.drawing import LARGEST, draw, overlays, readable_scale

CLASSES = ClassTable("one", (ClassInfo(1, "cat", True, (250, 0, 0)),))


class Grey:
    """A video without a file."""

    video_id = "v"

    def __init__(self, size: tuple[int, int], frames: int = 2) -> None:
        self.size = size
        self.frame_names = tuple(map(str, range(frames)))

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        return [np.full((*self.size, 3), 100, np.uint8)] * (stop - start)


def result(source: Grey) -> PanopticVideo:
    return PanopticVideo(video_id="v", frame_names=source.frame_names,
                         segments={1: VideoSegment(class_index=0, track=1)},
                         frames=[np.ones(source.size, np.int32)] * len(source.frame_names))


@pytest.mark.parametrize(("size", "scale"), [((1, 300), 6), ((16, 1200), 1), ((1, 60_000), 1), ((48, 64), 6),
                                             ((320, 4), 1), ((1, 1), 320)])
def test_strips_are_enlarged_no_further_than_a_picture_is_wide(size, scale):
    assert readable_scale(*size) == scale


def test_panes_beside_each_other_have_titles():
    source = Grey((330, 330))
    alone = next(overlays(source, result(source), CLASSES))
    panes = next(overlays(source, result(source), CLASSES, truth=result(source)))
    title = panes.shape[0] - alone.shape[0]
    assert title > 10
    width = panes.shape[1] // 3
    for left in (0, width, 2 * width):      # frame, truth, prediction
        assert (panes[:title, left:left + width] < 100).any()


@pytest.mark.parametrize("size", [(16, 1200), (1200, 16), (1, 1), (64, 64), (1080, 1920)])
def test_small_frames_are_enlarged_and_none_becomes_huge(size):
    picture = next(overlays(Grey(size), result(Grey(size)), CLASSES))
    scale = picture.shape[0] // size[0]
    assert picture.shape[:2] == (scale * size[0], scale * size[1])
    assert picture.shape[1] <= max(LARGEST, size[1])


def test_a_picture_is_drawn_as_a_picture_and_a_video_at_its_times(tmp_path):
    still = Grey((40, 60), frames=1)
    assert Image.open(draw(still, result(still), CLASSES, tmp_path / "overlays", still=True)).size == (480, 320)
    path = draw(Grey((40, 60)), result(Grey((40, 60))), CLASSES, tmp_path, times=[3.0, 3.25])
    with av.open(str(path)) as video:
        assert [frame.time for frame in video.decode(video=0)] == [0.0, 0.25]
