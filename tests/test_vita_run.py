"""VITA through every verb: a frame detector, its queries in their own order in the cache, tracks by the head alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from jobs import cache_queries, evaluate, make_shards, train_stage_one, train_stage_two, verify_shards
from jobs.cache_queries import CacheShard, cache_folder, cache_source, open_cache
from jobs.models import head_card, load_weights, open_system, read_card, save_model, segmenter_card
from jobs.recipes import find_recipe
from jobs.recipes.schema import JointConfig, Recipe, StillsConfig
from jobs.train_stage_two import build_stage
from jobs.training.optimizer import build_optimizer
from jobs.training.trainer import Stage
from model.cross_clip.vita import VitaTestConfig
from model.layers.convolution import dot_pixels
from pipeline.clips import StoredVideoSource
from pipeline.datasets import DatasetConfig, open_dataset
from pipeline.datasets.synthetic import write_world
from pipeline.predictions import read_listed_videos, read_results
from pipeline.query_cache import finish_cache
from pipeline.shards import ShardSet
from pipeline.shards.make import make_shards as write_shards
from pipeline.training_input import PseudoVideoConfig, Stills, training_plan
from tests.runs import here, inferred, scored
from tests.test_tube_link_run import predictions, short


def short_vita(folder: Path) -> Recipe:
    recipe = short(find_recipe("tiny_vita"), folder)
    return replace(recipe, world=replace(recipe.world, videos_train=4, videos_val=3))


def write_all_shards(recipe: Recipe) -> ShardSet:
    """Of both splits, without a cluster; those of the train split."""
    write_world(recipe.data_root, recipe.world)
    for split in ("train", "valid"):
        dataset = open_dataset(replace(recipe.dataset, root=str(recipe.data_root), split=split))
        write_shards(dataset, recipe.shards_of(split), recipe.shards, split=split)
    return ShardSet(recipe.shards_of("train"))


def jointly(recipe: Recipe, **input_changes) -> Recipe:
    """The same recipe with detector and head trained together, and so without a stage two."""
    one = recipe.stage_one
    joint = JointConfig(head=recipe.stage_two.head, losses=recipe.stage_two.losses, layers=2)
    return replace(recipe, stage_two=None, stage_one=replace(one, joint=joint,
                                                             input=replace(one.input, **input_changes)))


def take_steps(stage: Stage, expected: set[str]) -> None:
    """Two steps whose losses have the expected names and reach every weight that learns."""
    optimizer = build_optimizer(stage.model, stage.optimizer)
    batches = stage.batches(0, 1, 0)
    for _ in range(2):
        losses = stage.losses_of(stage.model, next(batches))
        assert set(losses) == expected
        assert all(loss.isfinite() for loss in losses.values())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        assert [name for name, weight in stage.model.named_parameters() if weight.grad is None] == []
        optimizer.step()


def check_tracks(recipe: Recipe) -> None:
    """Offline results of one video cover its frames; the detector alone makes tracks as well, aligned by frame."""
    valid = ShardSet(recipe.shards_of("valid"))
    source = StoredVideoSource(valid, valid.videos[0])
    for mode in ("offline", "near_online"):
        tracks = open_system(recipe, mode).predict(source).tracks
        assert len(tracks.frame_names) == len(valid.videos[0].frames)
        assert len(tracks.tracks) <= recipe.inference.tracks.candidates


def check_what_is_cached(recipe: Recipe) -> None:
    """Every frame is a clip, its queries stand in the detector's own order, and its masks follow from the pixels."""
    system = open_system(recipe, "near_online")
    shards = ShardSet(recipe.shards_of("train"))
    cache = open_cache(recipe)
    clips = cache.read(0)
    (video,) = (video for video in shards.videos if video.video_id == clips[0].video_id)
    assert len(clips) == len(video.frames)
    for cached, (_, frame) in zip(clips, system.clip_predictions(StoredVideoSource(shards, video)), strict=True):
        queries, embeddings, features = (torch.from_numpy(part.astype(np.float32)) for part in (
            cached.queries, cached.mask_embeddings, cached.pixel_features))
        torch.testing.assert_close(queries, frame.queries[0], atol=2e-3, rtol=2e-3)       # stored in half precision
        t, y, x = cached.pixel_positions.T.astype(np.int64)
        assert (t == 0).all()
        own = frame.mask_logits[0][:, t, y, x]
        torch.testing.assert_close(dot_pixels(embeddings, features.T), own, atol=0.02 * own.abs().max().item(), rtol=0)


def test_frozen_detector_cache_head_and_tracks_fit_together(tmp_path):
    """The parts of every verb without the cluster around them; what is random stays random."""
    recipe = short_vita(tmp_path / "run")
    shards = write_all_shards(recipe)
    save_model(recipe.segmenter_folder, recipe.stage_one.segmenter.build().state_dict(),
               segmenter_card(recipe, shards.classes, shards.fingerprint))
    caching = CacheShard(recipe=recipe)
    parts = [part for shard in range(len(shards.manifest["shards"]))
             for part in caching(split="train", shard=shard, part=shard)["parts"]]
    finish_cache(cache_folder(recipe), cache_source(recipe), parts)
    check_what_is_cached(recipe)

    stage = build_stage(recipe)
    take_steps(stage, {"class", "mask", "dice", "similarity", "class_aux", "mask_aux", "dice_aux"})
    save_model(recipe.head_folder, stage.model.state_dict(), head_card(recipe, read_card(recipe.segmenter_folder), ""))
    check_tracks(recipe)
    trained = recipe.stage_two.head
    assert open_system(recipe, "offline").head.config == trained
    other = inferred(recipe, head=VitaTestConfig(window=0, keep=0.5))
    assert open_system(other, "offline").head.config == replace(trained, window=0, keep=0.5)
    check_tracks(other)


def test_detector_and_head_that_learn_together_both_come_out_of_stage_one(tmp_path):
    recipe = short_vita(tmp_path / "run")
    recipe = jointly(recipe, clip_frames=3)
    shards = write_all_shards(recipe)
    stage = train_stage_one.build_stage(recipe)
    terms = {f"{term}{layer}" for term in ("class", "mask", "dice") for layer in ("", "_aux")}
    take_steps(stage, terms | {f"video_{term}" for term in terms} | {"similarity"})
    train_stage_one.save(recipe, stage.model.state_dict(), segmenter_card(recipe, shards.classes, shards.fingerprint))
    check_tracks(recipe)
    assert train_stage_two.main(recipe) == {"model": str(recipe.head_folder), "resumed": True}


def test_a_frozen_detector_is_the_one_it_starts_from_but_for_the_rows_of_other_classes(tmp_path):
    recipe = short_vita(tmp_path / "run")
    shards = write_all_shards(recipe)
    one = recipe.stage_one
    pretrained = replace(one.segmenter, num_classes=9).build().state_dict()
    save_model(tmp_path / "coco", pretrained, {"kind": "segmenter", "config": {}})
    recipe = replace(recipe, stage_one=replace(one, train=False, start_from=str(tmp_path / "coco")))
    weights = train_stage_one.kept(recipe)
    assert len(shards.classes) == one.segmenter.num_classes
    fresh = {name for name, weight in weights.items() if not torch.equal(weight, pretrained[name])}
    assert fresh == {"query_decoder.class_head.weight", "query_decoder.class_head.bias"}
    assert all(torch.equal(weight, weights[name]) for name, weight in train_stage_one.kept(recipe).items())


@pytest.mark.slow
def test_vita_goes_down_every_verb_and_its_tracks_come_back_from_the_file_for_the_server(tmp_path):
    recipe = here(short_vita(tmp_path / "run"))
    for verb in (make_shards, train_stage_one, cache_queries, train_stage_two):
        verb.main(recipe)
    lines = (recipe.run_folder / "stage_two" / "progress.jsonl").read_text().splitlines()
    progress = [json.loads(line) for line in lines]
    assert "similarity" in {name for row in progress for name in row["losses"]}
    dataset = open_dataset(replace(recipe.dataset, root=str(recipe.data_root), split="valid"))
    said = evaluate.main(scored(recipe, mode="offline"))
    assert (said["videos"], said["frames"], said["skipped"]) == (3, 21, [])
    assert 0 <= said["ap"] <= said["ap50"] <= 100
    results = predictions(recipe, "offline") / "results.zip"
    tracks = read_results(results, videos=read_listed_videos(dataset.annotations), classes=dataset.classes)
    assert sum(len(video.tracks) for video in tracks.values()) > 0
    again = evaluate.main(scored(recipe, predictions=str(results)))
    assert again["ap"] == pytest.approx(said["ap"], abs=1e-9)


@pytest.mark.slow
def test_every_verb_runs_where_detector_and_head_learn_together_from_videos_and_stills(tmp_path):
    recipe = here(short_vita(tmp_path / "run"))
    images = write_world(tmp_path / "coco", replace(recipe.world, layout="coco", videos_train=5, seed=1))
    stills = StillsConfig(dataset=DatasetConfig(name="coco_instance", root=str(images)), share=0.5)
    recipe = jointly(recipe, clip_frames=3, reach=4, pseudo_video=PseudoVideoConfig())
    recipe = replace(recipe, stage_one=replace(recipe.stage_one, stills=stills))
    assert make_shards.main(recipe)["stills"]["frames"] == 5
    assert verify_shards.main(recipe) == {"train": 0, "valid": 0, "stills": 0}
    videos, images = (ShardSet(recipe.shards_of(name)) for name in ("train", "stills"))
    draws = training_plan(videos, recipe.stage_one.input, stills=Stills(images, 0.5)).batch(0)
    assert sorted(draw.video >= len(videos.videos) for draw in draws) == [False, True]
    first = next(train_stage_one.build_stage(recipe).batches(0, 1, 0))
    everything = [*videos.videos, *images.videos]
    assert first.videos == tuple(everything[draw.video].video_id for draw in draws)
    assert train_stage_one.main(recipe)["steps"] == 2
    check_scores_and_rest(recipe)


@pytest.mark.slow
def test_every_verb_runs_where_the_detector_is_frozen(tmp_path):
    recipe = here(short_vita(tmp_path / "run"))
    make_shards.main(recipe)
    save_model(tmp_path / "coco", recipe.stage_one.segmenter.build().state_dict(), {"kind": "segmenter", "config": {}})
    recipe = replace(recipe, stage_one=replace(recipe.stage_one, train=False, start_from=str(tmp_path / "coco")))
    assert train_stage_one.main(recipe)["steps"] == 0
    cache_queries.main(recipe)
    assert train_stage_two.main(recipe)["steps"] == 2
    check_scores_and_rest(recipe)


def pre_training(folder: Path) -> Recipe:
    """Detector and head on single images, as `coco_vita_r50` trains them, of a synthetic world."""
    recipe = jointly(short_vita(folder), clip_frames=1)
    return here(replace(recipe, dataset=replace(recipe.dataset, name="coco_instance"),
                        world=replace(recipe.world, layout="coco", videos_train=6, frames=1),
                        evaluation=replace(recipe.evaluation, split="val", mode="offline")))


def check_start(part: nn.Module, folder: Path) -> None:
    weights = load_weights(folder)
    assert part.state_dict().keys() == weights.keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in part.state_dict().items())


@pytest.mark.long
def test_runs_on_videos_start_from_detector_and_head_as_single_images_left_them(tmp_path):
    images = pre_training(tmp_path / "coco")
    make_shards.main(images)
    assert train_stage_one.main(images)["steps"] == 2
    scores = evaluate.main(images)
    assert (scores["frames"], scores["skipped"]) == (3, [])
    starts = {"segmenter": str(images.segmenter_folder), "head": str(images.head_folder)}

    recipe = jointly(here(short_vita(tmp_path / "run")), clip_frames=3)
    one = recipe.stage_one
    recipe = replace(recipe, stage_one=replace(one, start_from=starts["segmenter"],
                                               joint=replace(one.joint, start_from=starts["head"])))
    make_shards.main(recipe)
    model = train_stage_one.build_stage(recipe).model
    check_start(model.segmenter, images.segmenter_folder)
    check_start(model.head, images.head_folder)
    assert train_stage_one.main(recipe)["steps"] == 2

    frozen = here(short_vita(tmp_path / "frozen"))
    frozen = replace(frozen, stage_one=replace(frozen.stage_one, train=False, start_from=starts["segmenter"]),
                     stage_two=replace(frozen.stage_two, start_from=starts["head"]))
    for verb in (make_shards, train_stage_one, cache_queries):
        verb.main(frozen)
    check_start(build_stage(frozen).model, images.head_folder)
    assert train_stage_two.main(frozen)["steps"] == 2


def check_scores_and_rest(recipe: Recipe) -> None:
    scores = evaluate.main(scored(recipe, mode="offline"))
    assert (scores["videos"], scores["frames"], scores["skipped"]) == (3, 21, [])
    assert train_stage_one.main(recipe)["resumed"]
    assert train_stage_two.main(recipe)["resumed"]
