"""Scores from a query cache: from all pixels they are those on the frames, from a sample they are near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs import cache_queries
from jobs.cache_queries import for_validation, open_cache
from jobs.cached_validation import numbers, open_scores
from jobs.models import load_segmenter, load_weights, open_system, read_card, save_model
from jobs.recipes.schema import ValidationConfig
from model.association import StitchingConfig
from model.contracts import VideoResults
from pipeline.cached_scores import CachedScores
from pipeline.clips import StoredVideoSource
from pipeline.metrics.scorecard import Scorecard
from pipeline.query_cache import sampled_videos
from pipeline.shards import ShardSet
from pipeline.system import System
from tests.untrained_run import untrained_on_shards

ALL = 2 * 64 * 64       # pixels of a clip of two frames


def validated(recipe, pixels):
    return replace(recipe, cache=replace(recipe.cache, dtype="float32"),
                   stage_two=replace(recipe.stage_two, validation=ValidationConfig(pixels=pixels)))


def make_decided(recipe) -> None:
    """Give the segmenter masks and classes that differ from query to query, so that there is something to compare."""
    weights = load_weights(recipe.segmenter_folder)
    torch.manual_seed(0)
    for name, value in weights.items():
        if name.startswith("query_decoder.predictor.class_head."):
            torch.nn.init.normal_(value, std=2.0)
        if name == "query_decoder.predictor.mask_norm.weight":
            value.fill_(20.0)
    save_model(recipe.segmenter_folder, weights, {
        name: value for name, value in read_card(recipe.segmenter_folder).items() if name != "weights_sha256"})


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """An untrained segmenter with caches for scores of all pixels and of an eighth of them."""
    recipe = untrained_on_shards(tmp_path_factory.mktemp("run"))
    make_decided(recipe)
    for pixels in (ALL, ALL // 8):
        cache_queries.fill_cache(for_validation(validated(recipe, pixels)))
    return validated(recipe, ALL)


@pytest.fixture(scope="module")
def systems(recipe) -> dict[str, System]:
    near_online = open_system(recipe, "near_online")
    torch.manual_seed(0)
    head = recipe.stage_two.head.build().eval()
    segmenter, _ = load_segmenter(recipe.segmenter_folder)
    head.initialise_from(segmenter.state_dict())
    for parameter in head.layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return {"near_online": near_online, "offline": replace(near_online, head=head.requires_grad_(False))}


@pytest.mark.parametrize("mode", ["near_online", "offline"])
def test_from_all_pixels_results_and_scores_are_those_on_the_frames(mode, recipe, systems):
    system = systems[mode]
    scores = open_scores(recipe)
    shards = ShardSet(recipe.shards_of("val"))
    card = Scorecard(scores.classes, ("panoptic",), windows=recipe.evaluation.windows)
    assert len(scores.videos) == len(shards.videos) == 4
    for video, stored in zip(scores.videos, shards.videos):
        expected = system.predict(StoredVideoSource(shards, stored))
        card.update(expected, VideoResults(panoptic=shards.truth(stored)))
        estimated = scores.predicted(system, video)
        assert len(expected.panoptic.frames) == len(estimated.panoptic.frames) == 7
        assert len(expected.panoptic.segments) > 2
        same = [np.mean(one.ravel() == other.ravel())
                for one, other in zip(expected.panoptic.frames, estimated.panoptic.frames)]
        assert min(same) > 0.999        # rounding decides where two masks are equally strong
    whole = numbers(card)
    estimate = numbers(scores.card(system))
    assert whole["miou"] > 0
    assert estimate == {name: pytest.approx(whole[name], abs=0.1) for name in estimate}
    assert whole.keys() - estimate.keys() == {"mvc8", "mvc16"}


def test_a_sample_has_as_many_pixels_in_every_frame_and_leaves_out_what_fills_up_the_last_clip(recipe):
    few = validated(recipe, ALL // 8)
    for video in sampled_videos(open_cache(for_validation(few))):
        assert video.width == ALL // 8 // 2
        assert len(video.frame_names) == 7          # three clips of two frames, and one that repeats its frame
        assert [len(one.pixels) for one in video.clips] == [2, 2, 2, 1]
        for one in video.clips:
            for frame, pixels in enumerate(one.pixels):
                positions = one.clip.pixel_positions[pixels]
                assert (positions[:, 0] == frame).all()
                assert len(np.unique(positions, axis=0)) == len(pixels)
                assert (one.clip.pixel_weights[pixels] > 0).all()


def test_the_truth_scores_100_and_loses_what_is_taken_from_it(recipe):
    scores = open_scores(recipe)
    card = Scorecard(scores.classes, ("panoptic",), windows=(1, 2, 4, 6), sampled=True)
    worse = Scorecard(scores.classes, ("panoptic",), windows=(1, 2, 4, 6), sampled=True)
    for truth in scores.truths:
        card.update(truth, truth)
        segments = dict(list(truth.panoptic.segments.items())[1:])
        frames = tuple(np.where(np.isin(frame, list(segments)), frame, -1) for frame in truth.panoptic.frames)
        worse.update(VideoResults(panoptic=replace(truth.panoptic, segments=segments, frames=frames)), truth)
    assert card.scores()["vpq"].summary()["vpq"] == 100
    assert card.scores()["identity"].summary()["switches"] == 0
    assert worse.scores()["vpq"].summary()["vpq"] < 90
    assert "mvc" not in card.metrics["panoptic"]


def test_from_an_eighth_of_the_pixels_the_estimate_is_near(recipe, systems):
    whole = numbers(open_scores(recipe).card(systems["offline"]))
    sample = numbers(open_scores(validated(recipe, ALL // 8)).card(systems["offline"]))
    assert sample["vpq"] == pytest.approx(whole["vpq"], abs=2)
    assert sample["sq"] == pytest.approx(whole["sq"], abs=2)


def test_a_cache_for_training_is_refused_for_scores(recipe, systems):
    cache_queries.fill_cache(recipe)
    with pytest.raises(ValueError, match=r"strategy=balanced.*set stage_two\.validation"):
        CachedScores(open_cache(recipe), systems["offline"].classes, ("panoptic",), windows=(1, 2, 4, 6))
    with pytest.raises(ValueError, match=r"set stage_two\.validation=\{\} and run jobs\.cache_queries"):
        open_scores(replace(recipe, stage_two=replace(recipe.stage_two, validation=None)))


def test_an_association_of_segments_is_refused(recipe, systems):
    system = systems["near_online"]
    stitching = replace(system, inference=replace(system.inference, association=StitchingConfig(overlap=1)))
    with pytest.raises(ValueError, match=r"stitching compares segments of whole frames"):
        open_scores(recipe).card(stitching)
