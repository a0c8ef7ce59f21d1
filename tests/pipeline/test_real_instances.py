"""Real instance videos become shards and training input, and no frame, track or pixel is lost."""

from __future__ import annotations

import json
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from pycocotools import mask as coco

from pipeline.clips import AugmentConfig
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.shards import ShardSet, make_shards
from pipeline.training_input import Draw, InputConfig, at_stride_4, make_clip, plan_clip, read_frames, training_batches

FRAMES = {"12_1mWNahzcsAc": 4, "davis_car-shadow": 20, "davis_cows": 21, "davis_horsejump-high": 25, "davis_libby": 17,
          "table_walk_a": 43}


@pytest.fixture(scope="module")
def root(real_data):
    return real_data / "real_vis"


@pytest.fixture(scope="module")
def shards(root, tmp_path_factory) -> ShardSet:
    folder = tmp_path_factory.mktemp("real_vis")
    report = make_shards(YouTubeVis(str(root), name="youtube_vis_2019"), folder, split="train")
    assert (report.videos, report.frames, report.skipped) == (6, sum(FRAMES.values()), {})
    return ShardSet(folder)


@pytest.fixture(scope="module")
def annotations(root) -> dict[str, list[dict]]:
    """Folder of a video -> its tracks in the json."""
    found = json.loads((root / "instances.json").read_text())
    folder = {entry["id"]: entry["file_names"][0].partition("/")[0] for entry in found["videos"]}
    tracks = {name: [] for name in FRAMES}
    for entry in sorted(found["annotations"], key=lambda entry: entry["id"]):
        tracks[folder[entry["video_id"]]].append(entry)
    return tracks


def drawn(mask: dict | None, size: tuple[int, int]) -> np.ndarray:
    """H W bool."""
    return coco.decode(coco.frPyObjects(mask, *size)).astype(bool) if mask else np.zeros(size, bool)


def test_every_frame_is_stored_with_its_own_bytes(root, shards):
    assert {video.video_id: len(video.frames) for video in shards.videos} == FRAMES
    for video in shards.videos:
        stored = shards.read(video, 0, len(video.frames), check=True)
        for frame, (jpeg, _) in zip(video.frames, stored, strict=True):
            assert jpeg == (root / "JPEGImages" / video.video_id / f"{frame.name}.jpg").read_bytes()


def test_true_tracks_have_the_areas_of_the_json(shards, annotations):
    for video in shards.videos:
        truth = shards.truth_tracks(video)
        assert [[mask and int(coco.area(mask)) for mask in track.masks] for track in truth.tracks] == \
            [entry["areas"] for entry in annotations[video.video_id]]
        assert [shards.classes.classes[track.class_index].dataset_id for track in truth.tracks] == \
            [entry["category_id"] for entry in annotations[video.video_id]]


def test_whole_videos_as_one_clip_have_every_pixel_of_every_track_as_target(shards, annotations):
    fetch = partial(read_frames, shards)
    for video in shards.videos:
        size = (video.height, video.width)
        still = AugmentConfig(size=size, scale=(1, 1), crop=False, flip=0, reverse=0, color=False)
        config = InputConfig(augment=still, clip_frames=len(video.frames), copy_paste=None)
        plan = plan_clip(Draw(position=0, epoch=0, video=video.index), shards.videos, config, donors=range(6))
        frames = np.empty((len(video.frames), 3, *size), np.uint8)
        real = np.empty((len(video.frames), *size), bool)
        targets = make_clip(plan, fetch, shards.classes, config, frames=frames, real_pixels=real).targets()
        assert real.all()
        tracks = annotations[video.video_id]
        assert targets.track_ids.tolist() == list(range(1, len(tracks) + 1))
        for mask, entry in zip(targets.masks.numpy(), tracks, strict=True):
            assert_array_equal(mask, np.stack([at_stride_4(drawn(one, size)) for one in entry["segmentations"]]))
        assert torch.equal(targets.void, ~targets.masks.any(0))


def test_training_batches_hold_every_video(shards):
    config = InputConfig(augment=AugmentConfig(size=(97, 161)), clip_frames=3, batch_size=3, workers=0)
    batches = training_batches(shards, config)
    epoch = list(islice(batches, 2))
    batches.close()
    assert sorted(video for batch in epoch for video in batch.videos) == sorted(FRAMES)
    for batch in epoch:
        assert batch.frames.shape == (3, 3, 3, 97, 161)
        for targets in batch.targets:
            assert targets.masks.flatten(1).any(1).all()
            assert torch.equal(targets.void, ~targets.masks.any(0))


def test_the_split_without_annotations_is_stored_and_refused_for_training(root, tmp_path):
    report = make_shards(YouTubeVis(str(root), split="valid"), tmp_path, split="valid")
    assert (report.frames, report.skipped) == (sum(FRAMES.values()), {})
    shards = ShardSet(tmp_path)
    assert not any(video.has_labels for video in shards.videos)
    with pytest.raises(ValueError, match="has labels, which training needs"):
        training_batches(shards, InputConfig(augment=AugmentConfig(size=(97, 161)), batch_size=2))
    with pytest.raises(ValueError, match="score a split that has"):
        shards.truth_tracks(shards.videos[0])
