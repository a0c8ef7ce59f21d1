"""Tracks from single clips equal the plain formula over the whole video."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from model.contracts import Geometry, Track
from model.postprocess.instances import TrackConfig, TrackMerger, boxes, tracks_video
from model.postprocess.resize import MaskResizer

IS_THING = (True, False, True)
GEOMETRIES = [Geometry(source=(20, 24), resized=(20, 24), padded=(32, 32)),
              Geometry(source=(50, 61), resized=(26, 32), padded=(32, 32))]


def plain(class_logits, masks, config, is_thing):
    """The rule as a formula. masks: n T H W logits at source size. Returns (class, score, T H W bool) per track."""
    probabilities = class_logits.double().softmax(-1)[:, :-1]
    top = probabilities.flatten().sort(descending=True, stable=True)
    candidates = [(int(index) // len(is_thing), int(index) % len(is_thing), float(score))
                  for score, index in zip(*top)][:config.candidates]
    candidates = [candidate for candidate in candidates if is_thing[candidate[1]]]
    tracks = [[[], torch.zeros(masks.shape[1:], dtype=torch.bool)] for _ in candidates]
    for frame in range(masks.shape[1]):
        inside = masks[:, frame] > 0
        means = (masks[:, frame].double().sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
        scores = [score * float(means[query]) for query, _, score in candidates]
        for candidate in torch.tensor(scores).sort(descending=True, stable=True).indices[:config.per_frame].tolist():
            tracks[candidate][0].append(scores[candidate])
            tracks[candidate][1][frame] = inside[candidates[candidate][0]]
    return [(label, np.mean(scores), volume.numpy()) for (_, label, _), (scores, volume) in zip(candidates, tracks)
            if volume.any()]


def scene(seed, *, queries=8, frames=5, size=(8, 8)):
    generator = torch.Generator().manual_seed(seed)
    masks = 3 * torch.randn(queries, frames, *size, generator=generator) - 2
    masks[2] = -5.0                                 # a query with an empty mask
    masks[3, 1:3] = -5.0                            # a query that is absent for two frames
    return 2 * torch.randn(queries, len(IS_THING) + 1, generator=generator), masks


def merge(class_logits, masks, config=None, *, geometry=GEOMETRIES[0], clip=2):
    merger = TrackMerger(config or TrackConfig(), is_thing=IS_THING, geometry=geometry)
    for clip_masks in masks.split(clip, dim=1):
        merger.add(clip_masks)
    return merger.finish(class_logits)


def volume(track: Track, size) -> np.ndarray:
    return np.stack([np.zeros(size, bool) if mask is None else coco_mask.decode(mask).astype(bool)
                     for mask in track.masks])


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["fits", "was scaled"])
@pytest.mark.parametrize("config", [TrackConfig(), TrackConfig(candidates=9, per_frame=3),
                                    TrackConfig(candidates=1, per_frame=1)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_streaming_equals_the_formula_over_the_whole_video(seed, config, geometry):
    class_logits, masks = scene(seed)
    resized = MaskResizer(geometry, size=(8, 8))(masks)
    expected = plain(class_logits, resized, config, IS_THING)
    tracks = merge(class_logits, masks, config, geometry=geometry)
    assert len(tracks) == len(expected)
    assert expected or config.candidates == 1       # the best pair of all may be stuff
    for track, (label, score, whole) in zip(tracks, expected):
        assert track.class_index == label
        assert track.score == pytest.approx(score, rel=1e-5)
        assert (volume(track, geometry.source) != whole).mean() < 1e-4     # logits within rounding of zero


@pytest.mark.parametrize("clip", [1, 3, 5])
def test_the_length_of_clips_changes_nothing(clip):
    class_logits, masks = scene(1)
    assert merge(class_logits, masks, clip=clip) == merge(class_logits, masks, clip=2)


def test_absent_frames_have_no_mask_and_stuff_has_no_tracks():
    class_logits, masks = scene(0)
    tracks = merge(class_logits, masks)
    assert {track.class_index for track in tracks} == {0, 2}
    gone = [track for track in tracks if track.masks[1] is None and track.masks[0] is not None]
    assert gone
    assert all(isinstance(mask["counts"], bytes) and mask["size"] == [20, 24]
               for track in tracks for mask in track.masks if mask)


def test_memory_of_a_frame_is_some_kilobytes():
    """64 queries at 720p would be 59 MB of bits; blobs are kept in a few hundred bytes each."""
    geometry = Geometry(source=(720, 1280), resized=(360, 640), padded=(384, 640))
    merger = TrackMerger(TrackConfig(), is_thing=IS_THING, geometry=geometry)
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(160.0), indexing="ij")
    centres = torch.rand(16, 2, 1, 1) * torch.tensor([90.0, 160.0])[:, None, None]
    merger.add((10 - ((rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2) ** 0.5)[:, None])
    assert sum(len(mask["counts"]) for mask in merger._masks[0] if mask) < 16 * 2000


def test_boxes_are_the_tightest_around_each_mask():
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 1, 2] = masks[0, 3, 6] = masks[2, 4, 0] = True
    assert boxes(masks) == [(slice(1, 4), slice(2, 7)), None, (slice(4, 5), slice(0, 1))]


def test_a_query_without_a_positive_pixel_after_resizing_is_absent():
    class_logits, masks = scene(0)
    masks[:] = -5
    masks[0, :, 0, 0] = 1e-3
    masks[1] = 5.0
    tracks = merge(class_logits, masks, geometry=Geometry(source=(8, 8), resized=(8, 8), padded=(8, 8)))
    assert any(volume(track, (8, 8))[0].sum() == 1 for track in tracks)
    padding = torch.full_like(masks, -5.0)
    padding[:, :, 7, 7] = 1.0                       # inside the padding of the network input
    assert merge(class_logits, padding) == ()


def test_names_are_attached_and_missing_frames_refused():
    tracks = merge(*scene(0))
    video = tracks_video(tracks, video_id="street", frame_names=tuple("abcde"), size=(20, 24))
    assert (video.video_id, video.size, video.tracks) == ("street", (20, 24), tracks)
    with pytest.raises(ValueError, match=r"street.*6 frames but 5"):
        tracks_video(tracks, video_id="street", frame_names=tuple("abcdef"), size=(20, 24))


def test_misuse_is_refused_with_the_cure():
    class_logits, masks = scene(0)
    merger = TrackMerger(TrackConfig(), is_thing=IS_THING, geometry=GEOMETRIES[0])
    with pytest.raises(ValueError, match="no clip was added"):
        merger.finish(class_logits)
    merger.add(masks)
    with pytest.raises(ValueError, match="one segmenter at one size"):
        merger.add(masks[1:])
    with pytest.raises(ValueError, match="right class table"):
        merger.finish(class_logits[:, 1:])
    with pytest.raises(ValueError, match="frame 5 hold NaN"):
        merger.add(masks * float("nan"))
    with pytest.raises(ValueError, match="at least 1"):
        TrackConfig(per_frame=0)
