"""The kept results of one video are those that were written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.contracts import VideoResults
from model.labels import VOID
from pipeline.predictions import PredictionWriter, kept_results
from tests.pipeline.metrics.some_tracks import track_of
from tests.pipeline.metrics.some_tracks import video_of as tracks_of
from tests.pipeline.metrics.some_videos import CLASSES, semantic, video_of


def panoptic():
    """Two frames with a thing of a class, another one, stuff and void."""
    maps = np.full((2, 4, 6), VOID, np.int32)
    maps[:, :2, :2] = 1                 # panoptic ids are class * 10000 + track
    maps[:, 2:, 4:] = 10_002
    maps[1, :2, 3:] = 20_000
    video = video_of(maps, {1: 0, 10_002: 1, 20_000: 2})
    return replace(video, segments={i: replace(segment, track=i % 10_000) for i, segment in video.segments.items()})


def written(folder, results):
    PredictionWriter(folder=folder, classes=CLASSES, made_by={}).write(results)
    return kept_results(folder, "v", CLASSES)


def test_panoptic_maps_come_back(tmp_path):
    video = panoptic()
    back = written(tmp_path, VideoResults(panoptic=video))
    assert back.panoptic.segments == video.segments
    for _ in range(2):      # they can be iterated again
        for ids, expected in zip(back.panoptic.frames, video.frames, strict=True):
            np.testing.assert_array_equal(ids, expected)
    assert back.tracks is None
    assert back.semantic is None


def test_tracks_come_back(tmp_path):
    blocks = np.zeros((2, 8, 8), bool)
    blocks[0, :3, :3] = True
    video = tracks_of([track_of(blocks, class_index=1, score=0.625)], frames=2)
    assert written(tmp_path, VideoResults(tracks=video)).tracks == video


def test_classes_come_back(tmp_path):
    video = semantic(panoptic())
    back = written(tmp_path, VideoResults(semantic=video)).semantic
    assert back.frame_names == video.frame_names
    for ids, expected in zip(back.frames, video.frames, strict=True):
        np.testing.assert_array_equal(ids, expected)


def test_a_video_that_was_not_written_is_named(tmp_path):
    written(tmp_path, VideoResults(panoptic=panoptic()))
    with pytest.raises(FileNotFoundError, match="other"):
        kept_results(tmp_path, "other", CLASSES)
