"""Stored pixels as the frames of a video: the truth of overlapping tracks, and frames without a label."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from model.labels import ClassInfo, ClassTable
from pipeline.errors import BadInput
from pipeline.query_cache import CachedClip, SampledVideo

CLASSES = ClassTable("two", (ClassInfo(1, "thing", True, (0, 0, 0)), ClassInfo(2, "stuff", False, (0, 0, 0))))
FRAMES = 2
WIDTH = 4


def clip_of(tubes: list[int], *, index: int = 0, weights: list[float] | None = None, frames: int = FRAMES
            ) -> CachedClip:
    """A clip of two frames with four stored pixels each. frames: that are no repeats; their rows are filled up."""
    count = FRAMES * WIDTH
    positions = np.array([(frame, 0, column) for frame in range(FRAMES) for column in range(WIDTH)], np.int16)
    filled = np.arange(count) >= frames * WIDTH
    return CachedClip(
        video_id="v", view=0, clip_index=index, start_frame=FRAMES * index, num_frames=frames, height=4, width=16,
        queries=np.zeros((3, 2)), mask_embeddings=np.zeros((3, 2)), class_logits=np.zeros((3, 3)),
        pixel_features=np.zeros((count, 2)), pixel_positions=np.where(filled[:, None], 0, positions),
        pixel_tubes=np.where(filled, -1, np.array(tubes, np.int32)),
        pixel_weights=np.where(filled, 0, np.ones(count) if weights is None else np.array(weights)).astype(np.float32),
        tube_ids=np.array([5, 7, 9]), tube_classes=np.array([0, 0, 1], np.int32), tube_areas=np.ones(3, np.int32),
        tube_overlaps=((0, 1),))


def test_a_pixel_that_tracks_share_belongs_to_each_and_stuff_is_no_track():
    video = SampledVideo.from_clips([clip_of([0, -2, 1, 2, 0, 0, -1, 2])])
    tracks = video.truth(CLASSES, ("tracks",)).tracks
    assert tracks.size == (1, WIDTH)
    decoded = [[None if mask is None else run_lengths.decode(mask)[0].tolist() for mask in track.masks]
               for track in tracks.tracks]
    assert decoded == [[[1, 1, 0, 0], [1, 1, 0, 0]], [[0, 1, 1, 0], None]]


def test_things_of_a_class_have_tracks_of_their_own_and_what_tubes_share_is_void_in_a_panoptic_map():
    panoptic = SampledVideo.from_clips([clip_of([0, -2, 1, 2, 0, 0, -1, 2])]).truth(CLASSES, ("panoptic",)).panoptic
    assert [frame.tolist() for frame in panoptic.frames] == [[[1, -1, 2, 10_000]], [[1, 1, -1, 10_000]]]
    assert panoptic.segments.keys() == {1, 2, 10_000}


def test_repeats_of_the_last_frame_are_no_frames_and_their_rows_no_pixels():
    video = SampledVideo.from_clips([clip_of([0] * 8), clip_of([1] * 8, index=1, frames=1)])
    assert video.frame_names == ("000000", "000001", "000002")
    assert [one.pixels.tolist() for one in video.clips] == [[[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 1, 2, 3]]]


def test_frames_that_nobody_labelled_are_known_by_their_weights():
    video = SampledVideo.from_clips([clip_of([0] * 4 + [-1] * 4, weights=[1] * 4 + [0] * 4)])
    assert video.labelled == {0}


def test_a_frame_without_a_stored_pixel_is_refused_by_the_name_of_its_video():
    clip = clip_of([0] * 8)
    clip.pixel_positions[:, 0] = 0
    with pytest.raises(BadInput, match=r"a frame has no stored pixel.*stage_two\.validation\.pixels") as error:
        SampledVideo.from_clips([clip])
    assert error.value.video == "v"
