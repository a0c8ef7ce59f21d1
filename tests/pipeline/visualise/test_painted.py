import numpy as np
import pytest
from pycocotools import mask as run_lengths

from model.contracts import SemanticVideo, Track, Tracks
from model.labels import VOID, ClassInfo, ClassTable, panoptic_id
from pipeline.visualise.painted import painted_classes, painted_tracks

CLASSES = ClassTable("two", (ClassInfo(1, "cat", True, (255, 0, 0)), ClassInfo(2, "sky", False, (0, 0, 255))))


def run_lengths_of(*pixels: tuple[int, int]) -> dict:
    mask = np.zeros((2, 3), np.uint8, order="F")
    for row, column in pixels:
        mask[row, column] = 1
    return run_lengths.encode(mask)


def video(*tracks: Track) -> Tracks:
    return Tracks(video_id="v", frame_names=("0", "1"), size=(2, 3), tracks=tracks)


def test_the_surest_track_lies_on_top_and_absent_frames_are_void():
    weak = Track(class_index=0, score=0.4, masks=(run_lengths_of((0, 0), (0, 1)), None))
    sure = Track(class_index=0, score=0.9, masks=(run_lengths_of((0, 1)), run_lengths_of((1, 2))))
    painted = painted_tracks(video(weak, sure))
    first = panoptic_id(0, 1)
    second = panoptic_id(0, 2)
    assert [painted.segments[i].score for i in (first, second)] == [0.9, 0.4]
    assert np.array_equal(painted.frames[0], [[second, first, VOID], [VOID] * 3])
    assert np.array_equal(painted.frames[1], [[VOID] * 3, [VOID, VOID, first]])
    assert len(list(painted.frames)) == 2


def test_tracks_below_the_min_score_are_not_drawn():
    painted = painted_tracks(video(Track(class_index=0, score=0.2, masks=(run_lengths_of((0, 0)), None))))
    assert not painted.segments
    assert all((frame == VOID).all() for frame in painted.frames)
    with pytest.raises(IndexError, match="frame 2 of 2"):
        painted.frames[2]


def test_classes_become_segments_without_track_and_can_be_walked_twice():
    maps = [np.array([[0, 1, VOID]], np.int32)]
    painted = painted_classes(SemanticVideo(video_id="v", frame_names=("0",), frames=maps), CLASSES)
    for _ in range(2):
        assert np.array_equal(next(iter(painted.frames)), [[panoptic_id(0, 0), panoptic_id(1, 0), VOID]])
