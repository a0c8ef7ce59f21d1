"""Label maps of results carry the coding of the data sets' own annotations."""

from __future__ import annotations

import numpy as np
import pytest

from model.contracts import PanopticVideo, SemanticVideo, VideoSegment
from model.labels import VOID, ClassInfo, ClassTable, panoptic_id
from pipeline.errors import BadInput
from pipeline.images import decode_png
from pipeline.predictions.label_maps import write_semantic_maps, write_step_maps

CLASSES = ClassTable("three", (ClassInfo(11, "person", True, (200, 0, 0)), ClassInfo(13, "car", True, (0, 200, 0)),
                               ClassInfo(0, "road", False, (0, 0, 200))))


def semantic(*maps):
    return SemanticVideo(video_id="v", frame_names=tuple(map(str, range(len(maps)))),
                         frames=[np.array(ids, np.int32) for ids in maps])


def panoptic(*maps):
    ids = {i for rows in maps for row in rows for i in row} - {VOID}
    return PanopticVideo(video_id="v", frame_names=tuple(map(str, range(len(maps)))),
                         frames=[np.array(rows, np.int32) for rows in maps],
                         segments={i: VideoSegment(class_index=i // 10_000, track=i % 10_000) for i in ids})


def test_semantic_maps_are_vspw_s(tmp_path):
    folder = write_semantic_maps(semantic([[VOID, 0], [1, 2]], [[2, 2], [2, 2]]), tmp_path, classes=CLASSES)
    found = [decode_png((folder / f"{name}.png").read_bytes()) for name in (0, 1)]
    assert [ids.tolist() for ids in found] == [[[0, 12], [14, 1]], [[1, 1], [1, 1]]]
    assert found[0].dtype == np.uint8


def test_step_maps_are_kitti_s(tmp_path):
    far = panoptic_id(1, 300)
    folder = write_step_maps(panoptic([[VOID, panoptic_id(0, 7), far, panoptic_id(2, 0)]]), tmp_path, classes=CLASSES)
    assert decode_png((folder / "0.png").read_bytes()).tolist() == [[[255, 0, 0], [11, 0, 7], [13, 1, 44], [0, 0, 0]]]


def test_what_the_coding_cannot_hold_is_refused(tmp_path):
    with pytest.raises(BadInput, match="classes 0 to 3, the table has 0 to 2"):
        write_semantic_maps(semantic([[0, 3]]), tmp_path, classes=CLASSES)
    many = ClassTable("many", tuple(ClassInfo(i, str(i), False, (0, 0, 0)) for i in range(253)))
    with pytest.raises(ValueError, match="numbers 0 to 252; a VSPW map holds 0 to 251"):
        write_semantic_maps(semantic([[0]]), tmp_path, classes=many)
    video = panoptic([[0, 1]])
    video.frames[0][0, 1] = 5
    with pytest.raises(BadInput, match=r"holds the ids \[5\]"):
        write_step_maps(video, tmp_path, classes=CLASSES)
    with pytest.raises(BadInput, match="class 1000, track 0"):
        write_step_maps(panoptic([[0]]), tmp_path, classes=ClassTable("x", (ClassInfo(1000, "x", False, (0, 0, 0)),)))
