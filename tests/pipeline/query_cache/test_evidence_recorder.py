"""Rows of the cache: tubes are numbered for the whole video, weights are exact, repeated frames give no evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from model.contracts import PixelEvidence, VideoQueries
from model.labels import ClassInfo, ClassTable
from model.losses.targets import clip_targets, video_targets
from pipeline.errors import BadInput
from pipeline.query_cache.batches import collate
from pipeline.query_cache.evidence_recorder import EvidenceRecorder, crowded_videos
from pipeline.query_cache.pixel_evidence import EvidenceConfig
from pipeline.records import Segment
from pipeline.shards import StoredVideo
from pipeline.training_input import clip_tubes
from tests.pipeline.shards.index_files import HeldVideos

CLASSES = ClassTable("world", (ClassInfo(0, "sky", False, (0, 0, 9)), ClassInfo(1, "ball", True, (9, 0, 0))))
SEGMENTS = (Segment(id=1, class_index=0), Segment(id=2, class_index=1), Segment(id=3, class_index=0),
            Segment(id=4, class_index=1), Segment(id=5, class_index=1, is_crowd=True))
VIDEO = StoredVideo(index=3, video_id="v", shard=0, height=16, width=24, frames=(), segments=SEGMENTS,
                    source_ids=(1, 2, 3, 4, 5))


def ids(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 6, (2, 4, 6)).astype(np.uint8)      # t h w


def recorded(config: EvidenceConfig, *, valid: int = 2, clips: int = 2) -> EvidenceRecorder:
    recorder = EvidenceRecorder(VIDEO, CLASSES, view=0, config=config, seed=0)
    for clip in range(clips):
        recorder.add(ids(clip), torch.arange(8 * 48.0).view(8, 2, 4, 6), start=2 * clip, valid=valid)
    return recorder


def test_stuff_of_one_class_is_one_tube_and_crowd_is_void():
    row = recorded(EvidenceConfig(strategy="dense")).rows[0]
    expected = np.array([-1, 0, 1, 0, 2, -1])[ids(0)]
    assert np.array_equal(row["pixel_tubes"].reshape(ids(0).shape), expected)
    assert row["tube_areas"].tolist() == [(expected == tube).sum() for tube in range(3)]


@pytest.mark.parametrize("strategy", ["balanced", "mixed", "dense"])
def test_the_weights_of_a_tube_add_up_to_its_exact_area(strategy):
    for clip, row in enumerate(recorded(EvidenceConfig(pixels=24, strategy=strategy)).rows):
        tubes = np.array([-1, 0, 1, 0, 2, -1])[ids(clip)]
        for tube, area in enumerate(row["tube_areas"]):
            assert area == (tubes == tube).sum()
            assert row["pixel_weights"][row["pixel_tubes"] == tube].sum() == pytest.approx(area)


def test_features_are_those_of_the_pixels_that_were_drawn():
    row = recorded(EvidenceConfig(pixels=24)).rows[0]
    features = torch.arange(8 * 48.0).view(8, 2, 4, 6)
    for (t, y, x), feature in zip(row["pixel_positions"], row["pixel_features"]):
        assert feature.tolist() == features[:, t, y, x].tolist()


@pytest.mark.parametrize("strategy", ["balanced", "dense"])
def test_repeated_frames_give_no_evidence_and_rows_keep_one_size(strategy):
    whole, short = (recorded(EvidenceConfig(pixels=40, strategy=strategy), valid=valid).rows[0] for valid in (2, 1))
    assert short["pixel_features"].shape == whole["pixel_features"].shape
    counted = short["pixel_weights"] > 0
    assert (short["pixel_positions"][counted, 0] == 0).all()
    assert short["pixel_weights"].sum() == pytest.approx(4 * 6)
    assert (short["pixel_tubes"][~counted] == -1).all()


def test_every_clip_and_view_draws_its_own_pixels_and_repeats_them():
    first = recorded(EvidenceConfig(pixels=12))
    again = recorded(EvidenceConfig(pixels=12))
    for a, b in zip(first.rows, again.rows):
        assert np.array_equal(a["pixel_positions"], b["pixel_positions"])
    view = EvidenceRecorder(VIDEO, CLASSES, view=1, config=EvidenceConfig(pixels=12), seed=0)
    view.add(ids(0), torch.zeros(8, 2, 4, 6), start=0, valid=2)
    assert not np.array_equal(view.rows[0]["pixel_positions"], first.rows[0]["pixel_positions"])


def test_rows_join_queries_clip_by_clip():
    queries = VideoQueries(queries=torch.randn(1, 2, 5, 8), mask_embeddings=torch.randn(1, 2, 5, 4),
                           class_logits=torch.randn(1, 2, 5, 3))
    clips = list(recorded(EvidenceConfig(pixels=12)).clips(queries))
    assert [(c.clip_index, c.start_frame, c.num_frames) for c in clips] == [(0, 0, 2), (1, 2, 2)]
    assert np.array_equal(clips[1].queries, queries.queries[0, 1].numpy())
    assert clips[0].tube_ids.tolist() == [1, 2, 4]
    assert clips[0].tube_classes.tolist() == [0, 1, 1]


def test_more_tubes_than_pixels_are_named_with_video_frame_and_cure():
    recorder = EvidenceRecorder(VIDEO, CLASSES, view=0, config=EvidenceConfig(pixels=3), seed=0)
    with pytest.raises(BadInput, match=r"video 'v': the clip that starts at frame 4: .* at least 8") as error:
        recorder.add(ids(0), torch.zeros(8, 2, 4, 6), start=4, valid=2)
    assert error.value.reason == "too-many-tubes"


OVERLAPS = {6: (2, 4), 7: (1, 2), 8: (1, 3), 9: (4, 5), 10: (2, 4, 5), 11: (1, 2, 4)}
CROWDED = replace(VIDEO, overlaps=OVERLAPS)


def crowded_ids(clip: int) -> np.ndarray:
    """The ball 4 is only in the first clip, and there it has only shared pixels."""
    allowed = [0, 2, 3, 5, 6, 7, 8, 10, 11] if clip == 0 else [0, 1, 2, 3, 5, 7, 8]
    return np.random.default_rng(clip).choice(allowed, (2, 4, 6)).astype(np.uint8)


def windows(config: EvidenceConfig, *, clips: slice = slice(None)) -> PixelEvidence:
    """Evidence of the crowded video beside one without overlaps, as stage two reads it."""
    read = []
    for video, draw in ((CROWDED, crowded_ids), (VIDEO, ids)):
        recorder = EvidenceRecorder(video, CLASSES, view=0, config=config, seed=0)
        for clip in range(2):
            recorder.add(draw(clip), torch.zeros(4, 2, 4, 6), start=2 * clip, valid=2)
        empty = torch.zeros(1, 2, 3, 4)
        read.append(list(recorder.clips(VideoQueries(queries=empty, mask_embeddings=empty, class_logits=empty)))[clips])
    return collate(read, (0, 1)).evidence


@pytest.mark.parametrize("clips", [[0, 1], [1], [0]])
def test_dense_evidence_of_overlapping_tubes_gives_the_targets_of_the_id_maps(clips):
    evidence = windows(EvidenceConfig(strategy="dense"), clips=slice(clips[0], clips[-1] + 1))
    actual = video_targets(evidence)
    maps = [np.concatenate([draw(clip) for clip in clips]) for draw in (crowded_ids, ids)]
    expected = clip_targets([clip_tubes(maps[0], SEGMENTS, CLASSES, overlaps=OVERLAPS).targets(),
                             clip_tubes(maps[1], SEGMENTS, CLASSES).targets()])
    for name in ("masks", "areas", "classes", "weights", "labelled", "void"):
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name


@pytest.mark.parametrize("strategy", ["balanced", "mixed"])
def test_samples_of_a_tube_that_shares_pixels_add_up_to_its_exact_area(strategy):
    targets = video_targets(windows(EvidenceConfig(pixels=24, strategy=strategy)))
    assert_close(targets.masks.sum(-1), targets.areas)
    assert targets.areas[0].min() > 0


def test_a_set_without_overlaps_stores_none():
    assert recorded(EvidenceConfig()).numbers.overlaps == ()
    evidence = windows(EvidenceConfig(pixels=24))
    assert [len(overlaps) for overlaps in evidence.overlaps] == [3, 0]
    assert evidence.tubes[1].min() == -1


@pytest.mark.parametrize(("config", "crowded"), [
    (EvidenceConfig(pixels=3), []), (EvidenceConfig(pixels=2), [3]), (EvidenceConfig(pixels=2, strategy="mixed"), [3]),
    (EvidenceConfig(pixels=2, strategy="dense"), []), (EvidenceConfig(pixels=2, strategy="uniform"), [])])
def test_a_video_with_more_tubes_than_stored_pixels_is_found_without_its_frames(config, crowded):
    """Two things and one class of stuff; crowd is no tube."""
    assert crowded_videos(HeldVideos([VIDEO]), CLASSES, config) == crowded
