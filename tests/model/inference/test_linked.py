"""Linking merged clips: what it promises whichever linker is used, on clips whose masks are known."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from model.association import (
    ClipWiseConfig,
    LinkerConfig,
    MemoryBufferConfig,
    NaiveBufferConfig,
    StitchingConfig,
)
from model.contracts import ClipPrediction, Geometry
from model.inference import Aligned, LinkedPanoptic, NearOnline, make_results
from model.inference.linked import clip_segments, locate, merge_clip
from model.labels import DIVISOR, VOID
from model.postprocess.panoptic import PanopticConfig, PanopticMerger, panoptic_video
from pipeline.clips import split_clips
from tests.model.inference import ways
from tests.model.inference.ways import near_online

SIZE = (16, 32)
QUERIES = 6
IS_THING = (True, False)
GEOMETRY = Geometry(source=SIZE, resized=SIZE, padded=SIZE)
NEW_MERGER = partial(PanopticMerger, PanopticConfig(), is_thing=IS_THING, geometry=GEOMETRY)
LINKERS = [StitchingConfig(), MemoryBufferConfig(), MemoryBufferConfig(overlap=0), NaiveBufferConfig(),
           ClipWiseConfig()]
VIDEO_FRAMES = 7


def truth(frames: int = VIDEO_FRAMES) -> np.ndarray:
    """T H W panoptic ids: two squares go right on two lanes over stuff; on the right of the stuff is void."""
    maps = np.full((frames, *SIZE), DIVISOR, dtype=np.int32)
    maps[:, :, 28:] = VOID
    for frame in range(frames):
        maps[frame, 1:6, frame:frame + 6] = 1
        maps[frame, 9:14, 2 * frame:2 * frame + 6] = 2
    return maps


def predictions(maps: np.ndarray, *, clip_frames: int = 2, overlap: int = 0) -> Iterator[tuple[ClipPrediction, int]]:
    """What a perfect segmenter says: one sure query per segment, in another order in every clip; the others nothing."""
    looks = torch.eye(QUERIES)
    for indices, valid in split_clips(len(maps), clip_frames, overlap=overlap):
        order = torch.randperm(QUERIES)
        class_logits = torch.zeros(QUERIES, 3)
        masks = torch.zeros(QUERIES, clip_frames, *SIZE)
        class_logits[:, 2] = 9.0
        masks[-1] = 9.0     # the last query says "no object" and has all the pixels nobody else wants
        for query, owner in enumerate((1, 2, DIVISOR)):
            class_logits[query, owner // DIVISOR] = 20.0
            masks[query] = torch.from_numpy(20.0 * (maps[list(indices)] == owner))
        yield ClipPrediction(
            class_logits=class_logits[order][None], mask_logits=masks[order][None], queries=looks[order][None],
            mask_embeddings=looks[order][None], alignment=looks[order][None], appearance=looks[order][None],
            pixel_features=torch.empty(1, 1, clip_frames, 1, 1)), valid


link_clips = partial(ways.linked, is_thing=IS_THING)


def linked(config: LinkerConfig, maps: np.ndarray, **changes):
    return link_clips(predictions(maps, overlap=config.overlap, **changes), config.build(),
                      new_merger=NEW_MERGER, overlap=config.overlap)


def painted(merged) -> np.ndarray:
    return np.stack(list(merged.frames))


def renamed(ids: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The tracks in the order of the truth; a track that means two things of the truth stays wrong."""
    names = {int(owner): int(expected[ids == owner][0]) for owner in np.unique(ids)}
    assert len(set(names.values())) == len(names)
    return np.vectorize(names.get)(ids)


@pytest.mark.parametrize("config", LINKERS, ids=lambda c: f"{c.kind}-{c.overlap}")
@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_a_perfect_segmenter_gives_the_truth_however_short_the_video(config, frames):
    maps = truth(frames)
    merged = linked(config, maps)
    np.testing.assert_array_equal(renamed(painted(merged), maps), maps)
    assert sorted(merged.segments) == [1, 2, DIVISOR] == sorted(merged.queries)
    assert {(s.class_index, s.track) for s in merged.segments.values()} == {(0, 1), (0, 2), (1, 0)}
    assert all(0.9 < s.score <= 1 for s in merged.segments.values())


@pytest.mark.parametrize("config", [StitchingConfig(overlap=2), MemoryBufferConfig(overlap=0), ClipWiseConfig()])
def test_clips_may_be_of_any_length(config):
    maps = truth()
    np.testing.assert_array_equal(renamed(painted(linked(config, maps, clip_frames=4)), maps), maps)


def test_one_clip_is_merged_as_near_online_merges_it():
    maps = truth(4)
    config = MemoryBufferConfig()
    clips = list(predictions(maps, clip_frames=4))
    alone = near_online(clips, merger=NEW_MERGER())
    together = link_clips(clips, config.build(), new_merger=NEW_MERGER)
    np.testing.assert_array_equal(painted(alone), painted(together))
    assert (dict(alone.segments), dict(alone.queries)) == (dict(together.segments), dict(together.queries))


def test_a_shared_frame_is_painted_by_the_first_clip_that_has_it_and_unpainted_segments_are_not_listed():
    maps = truth(3)
    (first, _), (second, _) = predictions(maps, overlap=1)
    ghost = maps.copy()
    ghost[1, 12:, :] = VOID
    ghost[1, 1:6, 20:24] = 2            # only the second clip sees it, and only in the shared frame
    ghost[2] = maps[2]
    ghost[2][ghost[2] == 2] = DIVISOR
    (_, _), (second, _) = predictions(ghost, overlap=1)
    merged = link_clips([(first, 2), (second, 2)], StitchingConfig().build(), new_merger=NEW_MERGER, overlap=1)
    np.testing.assert_array_equal(renamed(painted(merged)[:2], maps[:2]), maps[:2])
    assert set(np.unique(painted(merged))) - {VOID} == set(merged.segments)
    assert len(merged.segments) == 3


def test_frames_are_painted_when_asked_for_and_can_be_asked_again():
    merged = linked(MemoryBufferConfig(), truth())
    video = panoptic_video(merged, video_id="v", frame_names=tuple("abcde"))
    assert len(list(video.frames)) == len(list(video.frames)) == 5
    np.testing.assert_array_equal(merged.frames[2:4][1], merged.frames[3])


@pytest.mark.long
def test_no_clip_is_kept():
    alive = []

    def stream():
        for clip, frames in predictions(truth(), overlap=1):
            copy = replace(clip, mask_logits=clip.mask_logits.clone())
            alive.append(weakref.ref(copy.mask_logits))
            yield copy, frames
            del clip, copy
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1

    link_clips(stream(), MemoryBufferConfig().build(), new_merger=NEW_MERGER, overlap=1)
    assert len(alive) == VIDEO_FRAMES - 1


def test_boxes_go_around_all_frames_in_parts_of_width_and_height():
    frames = [np.full((10, 20), VOID, dtype=np.int32) for _ in range(2)]
    frames[0][2:4, 5:10] = 0
    frames[1][6:9, 8:12] = 0
    frames[1][0, 0] = 1
    boxes, present = locate(frames, 2)
    np.testing.assert_allclose(boxes, [(0.25, 0.2, 0.6, 0.9), (0, 0, 0.05, 0.1)])
    np.testing.assert_array_equal(present, [(True, False), (True, True)])


def test_a_linker_sees_each_segment_with_the_looks_of_its_query():
    clip, frames = next(predictions(truth()))
    merged = merge_clip(clip, frames, NEW_MERGER())
    segments, _ = clip_segments(merged, clip, looks="appearance")
    assert segments.is_thing.sum() == 2
    for number, query in enumerate(merged.queries.values()):
        np.testing.assert_array_equal(segments.embeddings[number], clip.appearance[0, query])
    ids = np.append(list(merged.segments), VOID)
    np.testing.assert_array_equal(ids[np.stack(list(segments.frames))], painted(merged))


def pixel_wise(class_logits: torch.Tensor, masks: torch.Tensor, *, sure: float, share: float) -> np.ndarray:
    """Video-kMaX's pixel-wise merging as a formula: t h w of queries, -1 where none is strong enough."""
    scores = class_logits.softmax(-1)[:, :-1].amax(-1)
    masks = masks.masked_fill((scores <= sure)[:, None, None, None], -9999.0)
    shares, queries = masks.softmax(0).max(0)
    return torch.where(shares > share, queries, -1).numpy()


@pytest.mark.parametrize("seed", range(5))
def test_pixels_may_be_given_to_the_strongest_of_the_sure_queries(seed):
    """Every class counts as things here, so that a segment has one query, and each pixel shows it."""
    generator = torch.Generator().manual_seed(seed)
    class_logits = 3 * torch.randn(QUERIES, 3, generator=generator)
    masks = 3 * torch.randn(QUERIES, 2, *SIZE, generator=generator)
    config = PanopticConfig(thing=0.3, stuff=0.3, pixel=0.5, sure_first=True)
    clip, frames = next(predictions(truth()))
    clip = replace(clip, class_logits=class_logits[None], mask_logits=masks[None])
    merged = merge_clip(clip, frames, PanopticMerger(config, is_thing=(True, True), geometry=GEOMETRY))
    query_of = {VOID: -1, **merged.queries}
    ours = np.vectorize(query_of.get)(painted(merged))
    np.testing.assert_array_equal(ours, pixel_wise(class_logits, masks, sure=0.3, share=0.5))
    unsure = replace(clip, class_logits=torch.zeros_like(clip.class_logits))
    merged = merge_clip(unsure, frames, PanopticMerger(replace(config, thing=0.9), is_thing=(True, True),
                                                       geometry=GEOMETRY))
    assert not merged.segments


def test_more_tracks_than_panoptic_ids_can_tell_apart_are_refused():
    class Restless:
        looks = "mask_embeddings"

        def step(self, segments):
            return np.full(len(segments.classes), DIVISOR)

    with pytest.raises(ValueError, match="more than 9999 tracks of one class"):
        link_clips(predictions(truth()), Restless(), new_merger=NEW_MERGER)


def test_what_cannot_be_linked_is_refused():
    with pytest.raises(ValueError, match="no clips"):
        link_clips([], StitchingConfig().build(), new_merger=NEW_MERGER)
    clip, frames = next(predictions(truth()))
    blind = replace(clip, appearance=None)
    with pytest.raises(ValueError, match=r"no appearance.*set inference\.association"):
        link_clips([(blind, frames)], MemoryBufferConfig().build(), new_merger=NEW_MERGER)
    assert link_clips([(blind, frames)], ClipWiseConfig().build(), new_merger=NEW_MERGER).segments
    broken = replace(clip, appearance=torch.full_like(clip.appearance, torch.nan))
    with pytest.raises(ValueError, match="appearance of the segments hold NaN"):
        link_clips([(broken, frames)], MemoryBufferConfig().build(), new_merger=NEW_MERGER)
    with pytest.raises(ValueError, match="one video"):
        link_clips([(clip, 3)], StitchingConfig().build(), new_merger=NEW_MERGER)


@pytest.mark.parametrize("config", [None, *LINKERS], ids=lambda c: f"{c.kind}-{c.overlap}" if c else "near_online")
def test_a_stream_gives_the_truth_clip_by_clip_with_the_ids_it_gave_before(config):
    """Objects that hide in between keep their ids too, as long as their query slot or the linker knows them."""
    maps = truth()
    maps[2:4][maps[2:4] == 2] = DIVISOR         # the lower square hides behind the stuff for two frames
    overlap = config.overlap if config else 0
    maker = (LinkedPanoptic(config.build(), new_merger=NEW_MERGER, overlap=overlap) if config
             else Aligned([NearOnline({"panoptic": NEW_MERGER})]))
    parts = [make_results([clip], [maker], num_classes=len(IS_THING))["panoptic"]
             for clip in predictions(maps, overlap=overlap)]
    ids = np.concatenate([painted(part) for part in parts])
    for part in parts:
        assert set(np.unique(painted(part))) - {VOID} == set(part.segments)
    if config is None or config.kind in ("memory_buffer", "clip_wise"):     # the others forget what hides
        np.testing.assert_array_equal(renamed(ids, maps), maps)
    else:
        np.testing.assert_array_equal(renamed(ids[:2], maps[:2]), maps[:2])
