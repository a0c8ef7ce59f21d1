"""A video at test time gives every frame once, in order and at the place of its geometry, from any source."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from model.inference import FixedCanvas
from pipeline.clips.reading import FolderSource, StoredVideoSource, video_clips
from pipeline.errors import BadInput
from pipeline.images import decode_jpeg, encode_jpeg
from pipeline.shards import ShardConfig, ShardSet, make_shards
from tests.pipeline.shards.toy_videos import toy_videos


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> StoredVideoSource:
    folder = tmp_path_factory.mktemp("set")
    data = toy_videos(folder / "videos", {"a": 5})
    make_shards(data, folder / "shards", ShardConfig(clip_frames=2), split="val")
    shards = ShardSet(folder / "shards")
    return StoredVideoSource(shards, shards.videos[0])


@pytest.fixture
def folder(tmp_path):
    """frame8 ... frame11, JPEG and PNG, each of one grey."""
    for index in range(8, 12):
        grey = np.full((24, 40, 3), 10 * index, dtype=np.uint8)
        if index % 2:
            cv2.imwrite(str(tmp_path / f"frame{index}.png"), grey)
        else:
            (tmp_path / f"frame{index}.jpg").write_bytes(encode_jpeg(grey))
    return tmp_path


def test_clips_hold_every_frame_once_and_repeat_the_last(stored):
    clips = list(video_clips(stored, 2, FixedCanvas(size=(33, 49))))
    assert [clip.indices for clip in clips] == [(0, 1), (2, 3), (4, 4)]
    assert [clip.valid for clip in clips] == [2, 2, 1]
    frames = torch.cat([clip.frames[0, :clip.valid] for clip in clips]).numpy()
    for frame, expected in zip(frames, stored.frames(0, 5), strict=True):
        assert_array_equal(frame[:, :24, :40], expected.transpose(2, 0, 1))
        assert not frame[:, 24:].any()
        assert not frame[:, :, 40:].any()
    assert torch.equal(clips[2].frames[0, 0], clips[2].frames[0, 1])


def test_overlapping_clips_share_frames(stored):
    clips = list(video_clips(stored, 2, FixedCanvas(size=(33, 49)), overlap=1))
    assert [clip.indices for clip in clips] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    for before, after in pairwise(clips):
        assert torch.equal(before.frames[0, 1], after.frames[0, 0])


def test_real_pixels_and_geometry_mark_the_place_of_the_frame(stored):
    clip = next(video_clips(stored, 2, FixedCanvas(size=(33, 49))))
    assert clip.frames.shape == (1, 2, 3, 33, 49)
    assert clip.real_pixels.shape == (1, 2, 33, 49)
    assert clip.real_pixels.sum() == 2 * 24 * 40
    assert clip.real_pixels[0, :, :24, :40].all()
    assert (clip.geometry.source, clip.geometry.resized, clip.geometry.padded) == ((24, 40), (24, 40), (33, 49))


def test_frames_that_do_not_fit_are_scaled_down_together_with_their_ids(stored):
    clip = next(video_clips(stored, 2, FixedCanvas(size=(17, 17))))
    assert clip.geometry.resized == (10, 17)
    assert clip.real_pixels[0, 0].sum() == 170
    assert clip.ids.shape == (2, 17, 17)
    assert not clip.ids[:, 10:].any()
    assert set(np.unique(clip.ids)) == set(range(6))


def test_small_frames_fill_the_input_with_enlarge(stored):
    clip = next(video_clips(stored, 2, FixedCanvas(size=(96, 80), enlarge=True)))
    assert clip.geometry.resized == (48, 80)
    assert clip.real_pixels[0, 0].sum() == 48 * 80
    assert clip.frames[0, 0, :, :48].any(1).any(0).all()
    assert_array_equal(clip.ids[0, :48:2, ::2], stored.ids(0))


def test_ids_are_the_stored_ones(stored):
    for clip in video_clips(stored, 2, FixedCanvas(size=(24, 40))):
        for position, frame in enumerate(clip.indices):
            assert_array_equal(clip.ids[position], stored.ids(frame))


def test_clips_are_read_one_at_a_time(stored, monkeypatch):
    reads = []
    monkeypatch.setattr(stored, "frames", lambda *span, frames=stored.frames: reads.append(span) or frames(*span))
    clips = video_clips(stored, 2, FixedCanvas(size=(33, 49)))
    next(clips)
    assert reads == [(0, 2)]


def test_a_folder_is_read_in_the_order_of_its_numbers(folder):
    source = FolderSource(folder)
    assert source.frame_names == ("frame8", "frame9", "frame10", "frame11")
    assert source.size == (24, 40)
    assert [int(image[0, 0, 0]) for image in source.frames(0, 4)] == [80, 90, 100, 110]
    assert [clip.valid for clip in video_clips(source, 3, FixedCanvas(size=(33, 65)))] == [3, 1]


def test_a_folder_has_no_labels(folder):
    with pytest.raises(ValueError, match="no labels"):
        _ = next(video_clips(FolderSource(folder), 2, FixedCanvas(size=(33, 65)))).ids


def test_grey_frames_become_three_equal_colours(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.arange(48, dtype=np.uint8).reshape(6, 8))
    image = FolderSource(tmp_path).frames(0, 1)[0]
    assert_array_equal(image, np.repeat(np.arange(48).reshape(6, 8, 1), 3, axis=2))


def test_the_bytes_of_a_frame_and_not_its_name_decide_its_format(folder):
    (folder / "frame10.jpg").rename(folder / "frame10.png")
    assert [int(image[0, 0, 0]) for image in FolderSource(folder).frames(0, 4)] == [80, 90, 100, 110]


def test_a_folder_without_frames_or_with_bad_frames_is_refused_by_name(folder, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match="no frames"):
        FolderSource(tmp_path_factory.mktemp("empty"))
    cut = folder / "frame10.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    with pytest.raises(BadInput, match=r"frame10\.jpg"):
        FolderSource(folder).frames(0, 4)
    cut.write_bytes(encode_jpeg(np.zeros((24, 48, 3), dtype=np.uint8)))
    with pytest.raises(BadInput, match=r"frame10\.jpg.*24, 48.*one size"):
        FolderSource(folder).frames(0, 4)
    cv2.imwrite(str(folder / "frame7.png"), np.zeros((24, 40, 3), dtype=np.uint16))
    with pytest.raises(BadInput, match="16 bits"):
        FolderSource(folder)


def test_two_files_of_one_frame_are_refused_since_one_would_overwrite_the_other(folder):
    cv2.imwrite(str(folder / "frame10.png"), np.zeros((24, 40, 3), np.uint8))
    with pytest.raises(BadInput, match=r"1 frames have two files, such as 'frame10'.*Keep one") as error:
        FolderSource(folder)
    assert error.value.file == folder


def test_a_frame_that_cannot_be_opened_is_bad_input_too(folder):
    (folder / "frame12.jpg").symlink_to(folder / "nowhere")
    with pytest.raises(BadInput, match=r"frame12\.jpg: it cannot be read") as error:
        FolderSource(folder).frames(0, 5)
    assert error.value.reason == "unreadable"


def test_a_damaged_stored_frame_names_video_and_frame(stored, monkeypatch):
    pairs = stored.shards.read(stored.video, 0, 2)
    monkeypatch.setattr(stored.shards, "read", lambda *_: [pairs[0], (pairs[1][0][:50], None)])
    with pytest.raises(BadInput, match=r"video 'a'.*frame '00003'"):
        next(video_clips(stored, 2, FixedCanvas(size=(33, 49))))


def test_real_frames_are_read_as_they_are_on_disk(real_data):
    source = FolderSource(min((real_data / "real_vps").rglob("*.jpg")).parent)
    first = next(video_clips(source, 2, FixedCanvas(size=(2001, 2001))))
    expected = decode_jpeg(source.files[0].read_bytes())
    assert_array_equal(first.frames[0, 0, :, :source.size[0], :source.size[1]].numpy(), expected.transpose(2, 0, 1))
