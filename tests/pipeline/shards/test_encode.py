"""Every fault of a video is found before it is stored, and reported with the video, the file and the cure."""

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
from pipeline.images import decode_jpeg, decode_png, encode_jpeg, encode_png, resize_image
from pipeline.records import Segment
from pipeline.shards.encode import encode_video
from pipeline.shards.plan import ShardConfig
from tests.faults import error_of
from tests.pipeline.shards.toy_videos import SEGMENTS, Described, ToyVideos, toy_map, toy_videos, write_label

CONFIG = ShardConfig(clip_frames=4)
LARGER = coco.encode(np.ones((50, 50), np.uint8, order="F"))    # larger than the frames


@pytest.fixture
def data(tmp_path) -> ToyVideos:
    return toy_videos(tmp_path / "toy", {"cows": 6})


def with_masks(data: ToyVideos, drawn: np.ndarray) -> Described:
    """The same video with other masks, frames x segments x H W bool; segments without pixels are absent."""
    video = data.read("cows")
    packed = [[coco.encode(np.asfortranarray(mask.view(np.uint8))) if mask.any() else None for mask in masks]
              for masks in drawn]
    frames = tuple(replace(frame, masks={s.id: mask for s, mask in zip(video.segments, masks) if mask})
                   for frame, masks in zip(video.frames, packed))
    return Described(data, replace(video, frames=frames))


def change_masks(data: ToyVideos, frame: int, masks: dict) -> None:
    """Replace the run lengths of some ids in one frame of "cows" on disk."""
    path = data.image("cows", frame).with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | masks))


def refused(data: ToyVideos, video: str = "cows", config: ShardConfig = CONFIG) -> BadInput:
    error = error_of(lambda: encode_video(data, video, config))
    assert error.video == video
    assert error.cure
    return error


def test_jpegs_pass_through_and_ids_are_renumbered_in_order(data):
    clips = encode_video(data, "cows", CONFIG).clips
    assert [clip.meta["num_frames"] for clip in clips] == [4, 2]
    assert [clip.meta["start_frame"] for clip in clips] == [0, 4]
    source = np.array([0] + [segment.id for segment in SEGMENTS])
    for clip in clips:
        members = dict(clip.members)
        for index in range(clip.meta["num_frames"]):
            frame = clip.meta["start_frame"] + index
            assert members[f"f{index:03d}.jpg"] == data.image("cows", frame).read_bytes()
            ids = decode_png(members[f"f{index:03d}.png"])
            assert ids.dtype == np.uint8
            assert_array_equal(source[ids], toy_map("cows", frame, 24, 40))
        assert [row["source_id"] for row in clip.meta["segments"]] == source[1:].tolist()
        assert json.loads(members["meta.json"]) == clip.meta


@pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_a_video_with_more_than_255_ids_is_stored_in_16_bits(tmp_path, count, dtype):
    segments = tuple(Segment(id=3 * index + 1, class_index=1) for index in range(count))
    data = toy_videos(tmp_path, {"many": 1}, width=320, height=4, segments=segments)
    ids = decode_png(dict(encode_video(data, "many", CONFIG).clips[0].members)["f000.png"])
    assert ids.dtype == dtype
    assert_array_equal(np.array([0] + [s.id for s in segments])[ids], toy_map("many", 0, 4, 320, segments))


@pytest.mark.parametrize("frames", [1, 3])
def test_a_video_shorter_than_a_clip_is_legal(tmp_path, frames):
    data = toy_videos(tmp_path, {"short": frames})
    assert [clip.meta["num_frames"] for clip in encode_video(data, "short", CONFIG).clips] == [frames]


def test_overlapping_masks_become_one_map_without_loss(tmp_path):
    rng = np.random.default_rng(0)
    drawn = rng.random((6, len(SEGMENTS), 24, 40)) > 0.6
    drawn[2, 1] = False
    drawn[3, :, 20:] = False
    data = with_masks(toy_videos(tmp_path / "toy", {"cows": 6}, masks=True), drawn)
    clips = encode_video(data, "cows", CONFIG).clips
    assert clips[0].meta["overlaps"] == clips[1].meta["overlaps"]
    members = {segment["id"]: [segment["id"]] for segment in clips[0].meta["segments"]}
    members |= {overlap["id"]: overlap["segments"] for overlap in clips[0].meta["overlaps"]}
    assert list(members) == list(range(1, len(members) + 1))
    assert len(set(map(tuple, members.values()))) == len(members)
    for frame, masks in enumerate(drawn):
        ids = decode_png(dict(clips[frame // 4].members)[f"f{frame % 4:03d}.png"])
        for id, mask in enumerate(masks, start=1):
            assert_array_equal(np.isin(ids, [stored for stored, segments in members.items() if id in segments]), mask)


def test_more_than_255_ids_and_overlaps_need_16_bits(tmp_path):
    segments = tuple(Segment(id=id, class_index=1) for id in range(1, 10))
    drawn = (np.arange(512)[None] >> np.arange(9)[:, None] & 1).astype(bool)[None, :, None]     # every combination
    data = toy_videos(tmp_path / "toy", {"cows": 1}, height=1, width=512, segments=segments, masks=True)
    [clip] = encode_video(with_masks(data, drawn), "cows", CONFIG).clips
    ids = decode_png(dict(clip.members)["f000.png"])
    assert (ids.dtype, len(np.unique(ids)), len(clip.meta["overlaps"])) == (np.uint16, 512, 502)


@pytest.mark.parametrize("counts", [[1, 2], LARGER["counts"].decode()])
def test_run_lengths_that_do_not_fill_the_frame_are_named(tmp_path, counts):
    data = toy_videos(tmp_path / "toy", {"cows": 2}, masks=True)
    change_masks(data, 1, {"7": {"size": [24, 40], "counts": counts}})
    error = refused(data)
    assert error.reason == "size-differs"
    assert "id 7 in frame '00003'" in str(error)


@pytest.mark.parametrize(("masks", "reason"), [({"7": {"size": [25, 40], "counts": "0"}}, "size-differs"),
                                               ({"8": {"size": [24, 40], "counts": "0"}}, "unlisted-id")])
def test_masks_of_another_size_and_of_an_unlisted_id_are_named(tmp_path, masks, reason):
    data = toy_videos(tmp_path / "toy", {"cows": 1}, masks=True)
    change_masks(data, 0, masks)
    assert refused(data).reason == reason


def test_png_frames_become_jpegs(data):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), dtype=np.uint8)
    grey = np.repeat(pixels[2, ..., :1], 3, axis=2)
    for frame, content in enumerate((pixels[0], pixels[1], pixels[2, ..., 0])):
        data.image("cows", frame).write_bytes(encode_png(content))      # recognised by the bytes, not by the name
    members = dict(encode_video(data, "cows", CONFIG).clips[0].members)
    for frame, content in enumerate((pixels[0], pixels[1], grey)):
        assert members[f"f{frame:03d}.jpg"] == encode_jpeg(content, quality=95)
    assert members["f003.jpg"] == data.image("cows", 3).read_bytes()
    half = dict(encode_video(data, "cows", ShardConfig(resize_height=12)).clips[0].members)["f000.jpg"]
    assert half == encode_jpeg(resize_image(pixels[0], 12, 20), quality=95)


@pytest.mark.parametrize(("change", "reason"), [
    (lambda png: png[:-20], "corrupt-image"), (lambda _: encode_png(np.zeros((24, 40), np.uint16)), "corrupt-image"),
    (lambda _: encode_png(np.zeros((24, 41), np.uint8)), "size-differs")])
def test_an_impossible_png_frame_is_named(data, change, reason):
    path = data.image("cows", 4)
    path.write_bytes(change(encode_png(np.zeros((24, 40, 3), np.uint8))))
    error = refused(data)
    assert (error.reason, str(error.file)) == (reason, str(path))


def test_resizing_changes_images_and_labels_alike(tmp_path):
    for masks in (False, True):
        data = toy_videos(tmp_path / str(masks), {"cows": 1}, masks=masks)
        [clip] = encode_video(data, "cows", ShardConfig(resize_height=12)).clips
        members = dict(clip.members)
        assert (clip.meta["height"], clip.meta["width"]) == (12, 20)
        pixels = decode_jpeg(data.image("cows", 0).read_bytes())
        assert members["f000.jpg"] == encode_jpeg(resize_image(pixels, 12, 20), quality=95)
        shrunk = toy_map("cows", 0, 24, 40)[1::2, 1::2]     # halving takes the later of two pixels
        ids = decode_png(members["f000.png"])
        assert_array_equal(ids == 1, shrunk == SEGMENTS[0].id)
        assert set(np.unique(ids)) == set(range(6))     # the row of overlaps is not sampled


def test_a_frame_of_the_requested_height_keeps_its_bytes(data):
    members = dict(encode_video(data, "cows", ShardConfig(resize_height=24)).clips[0].members)
    assert members["f000.jpg"] == data.image("cows", 0).read_bytes()


@pytest.mark.parametrize(("which", "reason"), [("image", "missing-image"), ("label", "missing-label")])
def test_a_missing_file_is_named(data, which, reason):
    path = getattr(data, which)("cows", 5)
    path.unlink()
    error = refused(data)
    assert (error.reason, str(error.file)) == (reason, str(path))


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_truncated_file_is_named(data, which):
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
])
def test_an_impossible_description_is_refused(data, change, reason):
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


@contextmanager
def open_folder():
    """A folder that every user may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def unprivileged():
    """Run without root's permission to read every file."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
