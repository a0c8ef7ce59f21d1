"""Every fault of a video is found before it is stored, and named with video, file and cure."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pycocotools import mask as coco

from pipeline.errors import BadInput
from pipeline.images import decode_jpeg, decode_png, encode_jpeg, resize_image
from pipeline.records import Segment
from pipeline.shards.encode import encode_video
from pipeline.shards.plan import ShardConfig
from tests.pipeline.shards.toy_videos import SEGMENTS, ToyVideos, toy_map, toy_videos, write_label

CONFIG = ShardConfig(clip_frames=4)


@pytest.fixture
def data(tmp_path) -> ToyVideos:
    return toy_videos(tmp_path / "toy", {"cows": 6})


def refused(data: ToyVideos, video: str = "cows", config: ShardConfig = CONFIG) -> BadInput:
    with pytest.raises(BadInput) as caught:
        encode_video(data, video, config)
    assert caught.value.video == video
    assert caught.value.cure
    return caught.value


def test_jpegs_pass_through_and_ids_are_renumbered_in_order(data):
    clips = encode_video(data, "cows", CONFIG)
    assert [clip.meta["num_frames"] for clip in clips] == [4, 2]
    assert [clip.meta["start_frame"] for clip in clips] == [0, 4]
    source = np.array([0] + [segment.id for segment in SEGMENTS])
    for clip in clips:
        members = dict(clip.members)
        for number in range(clip.meta["num_frames"]):
            frame = clip.meta["start_frame"] + number
            assert members[f"f{number:03d}.jpg"] == data.image("cows", frame).read_bytes()
            ids = decode_png(members[f"f{number:03d}.png"])
            assert ids.dtype == np.uint8
            assert_array_equal(source[ids], toy_map("cows", frame, 24, 40))
        assert [row["source_id"] for row in clip.meta["segments"]] == source[1:].tolist()
        assert json.loads(members["meta.json"]) == clip.meta


@pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_a_video_with_more_than_255_ids_is_stored_in_16_bits(tmp_path, count, dtype):
    segments = tuple(Segment(id=3 * number + 1, class_index=1) for number in range(count))
    data = toy_videos(tmp_path, {"many": 1}, width=320, height=4, segments=segments)
    ids = decode_png(dict(encode_video(data, "many", CONFIG)[0].members)["f000.png"])
    assert ids.dtype == dtype
    assert_array_equal(np.array([0] + [s.id for s in segments])[ids], toy_map("many", 0, 4, 320, segments))


@pytest.mark.parametrize("frames", [1, 3])
def test_a_video_shorter_than_a_clip_is_legal(tmp_path, frames):
    data = toy_videos(tmp_path, {"short": frames})
    assert [clip.meta["num_frames"] for clip in encode_video(data, "short", CONFIG)] == [frames]


def test_overlapping_masks_become_run_lengths_in_the_meta(tmp_path):
    data = toy_videos(tmp_path, {"cows": 2}, masks=True)
    [clip] = encode_video(data, "cows", CONFIG)
    assert [suffix for suffix, _ in clip.members] == ["f000.jpg", "f001.jpg", "meta.json"]
    ids = toy_map("cows", 1, 24, 40)
    for number, segment in enumerate(SEGMENTS, start=1):
        mask = coco.decode({"size": [24, 40], "counts": clip.meta["masks"][1][str(number)]})
        assert mask[0].all()
        assert_array_equal(mask[1:], ids[1:] == segment.id)


def test_resizing_changes_images_and_labels_alike(tmp_path):
    for masks in (False, True):
        data = toy_videos(tmp_path / str(masks), {"cows": 1}, masks=masks)
        [clip] = encode_video(data, "cows", ShardConfig(resize_height=12))
        members = dict(clip.members)
        assert (clip.meta["height"], clip.meta["width"]) == (12, 20)
        pixels = decode_jpeg(data.image("cows", 0).read_bytes())
        assert members["f000.jpg"] == encode_jpeg(resize_image(pixels, 12, 20), quality=95)
        shrunk = toy_map("cows", 0, 24, 40)[1::2, 1::2]     # the nearest centre when halving: the later of the two
        label = coco.decode({"size": [12, 20], "counts": clip.meta["masks"][0]["1"]}) if masks else \
            decode_png(members["f000.png"]) == 1
        assert_array_equal(label, shrunk == SEGMENTS[0].id)


def test_a_frame_of_the_asked_height_keeps_its_bytes(data):
    members = dict(encode_video(data, "cows", ShardConfig(resize_height=24))[0].members)
    assert members["f000.jpg"] == data.image("cows", 0).read_bytes()


@pytest.mark.parametrize(("which", "reason"), [("image", "missing-image"), ("label", "missing-label")])
def test_a_missing_file_is_named(data, which, reason):
    path = getattr(data, which)("cows", 5)
    path.unlink()
    error = refused(data)
    assert (error.reason, str(error.file)) == (reason, str(path))


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_cut_file_is_named(data, which):
    path = getattr(data, which)("cows", 4)
    path.write_bytes(path.read_bytes()[:-20])
    error = refused(data)
    assert (error.reason, str(error.file)) == (f"corrupt-{which}", str(path))


def test_an_empty_file_is_named(data):
    data.image("cows", 1).write_bytes(b"")
    assert refused(data).reason == "corrupt-image"


def test_damage_inside_a_jpeg_is_found_in_the_frames_decoded_in_full(data):
    for frame in range(6):
        path = data.image("cows", frame)
        content = bytearray(path.read_bytes())
        content[-300:-200] = b"\xff\xd0" * 50
        path.write_bytes(content)
    assert refused(data).reason == "corrupt-image"
    assert refused(data, config=ShardConfig(decoded_frames=6)).reason == "corrupt-image"
    assert encode_video(data, "cows", ShardConfig(decoded_frames=0))


def test_frames_of_another_size_are_named(data):
    data.image("cows", 2).write_bytes(encode_jpeg(np.zeros((24, 41, 3), np.uint8)))
    error = refused(data)
    assert error.reason == "size-differs"
    assert "41x24" in str(error)
    assert "40x24" in str(error)


def test_labels_of_another_size_are_named(data):
    write_label(data.label("cows", 2), toy_map("cows", 2, 25, 40))
    assert refused(data).reason == "size-differs"


@pytest.mark.parametrize("id", [5, 16_500_000])
def test_an_id_the_annotation_does_not_list_is_named(data, id):
    ids = toy_map("cows", 3, 24, 40)
    ids[5, 5] = id
    write_label(data.label("cows", 3), ids)
    error = refused(data)
    assert error.reason == "unlisted-id"
    assert str(id) in str(error)


def test_an_id_listed_for_the_video_but_not_for_the_frame_is_named(data):
    video = data.read("cows")
    frames = (replace(video.frames[0], segment_ids=video.frames[0].segment_ids[1:]), *video.frames[1:])
    error = refused(Described(data, replace(video, frames=frames)))
    assert error.reason == "unlisted-id"
    assert "[7]" in str(error)


def test_a_listed_segment_without_pixels_is_named(data):
    ids = toy_map("cows", 3, 24, 40)
    write_label(data.label("cows", 3), np.where(ids == 300, 0, ids))
    error = refused(data)
    assert error.reason == "no-pixels"
    assert "300" in str(error)


@pytest.mark.parametrize(("change", "reason"), [
    (lambda video: replace(video, frames=()), "empty-video"),
    (lambda video: replace(video, segments=(Segment(id=7, class_index=4),)), "unknown-category"),
    (lambda video: replace(video, segments=SEGMENTS + SEGMENTS[:1]), "bad-id"),
    (lambda video: replace(video, frames=(replace(video.frames[0], label=None), *video.frames[1:])), "missing-label"),
])
def test_a_description_that_cannot_be_is_refused(data, change, reason):
    assert refused(Described(data, change(data.read("cows")))).reason == reason


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_file_without_read_permission_is_named(which):
    with open_folder() as folder:
        data = toy_videos(folder, {"cows": 2})
        path = getattr(data, which)("cows", 1)
        path.chmod(0)
        with unprivileged():
            error = refused(data)
        assert (error.reason, str(error.file)) == ("unreadable", str(path))
        assert "ermission" in str(error)


def test_an_error_of_a_reader_gains_the_name_of_the_video(data):
    with pytest.raises(AttributeError) as caught:
        encode_video(Described(data, None), "cows", CONFIG)
    assert caught.value.__notes__ == ["while sharding video 'cows'"]


class Described(ToyVideos):
    """A ToyVideos whose description is given."""

    def __init__(self, data: ToyVideos, video) -> None:
        super().__init__(data.root, data.lengths)
        object.__setattr__(self, "video", video)

    def read(self, video_id):
        return self.video


@contextmanager
def open_folder():
    """A folder every user may enter; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def unprivileged():
    """Without root's right to read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
