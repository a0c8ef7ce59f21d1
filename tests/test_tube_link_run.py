"""Tube-Link through every verb: tracks on a synthetic world and on real videos, and every result from one run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from jobs import cache_queries, evaluate, make_shards, train_stage_one, train_stage_two
from jobs.models import load_system
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.verb import resolved
from model.inference import ResizeConfig
from model.postprocess.tube_panoptic import TubePanopticConfig
from pipeline.clips import AugmentConfig, StoredVideoSource
from pipeline.datasets import DatasetConfig, open_dataset
from pipeline.datasets.synthetic import SyntheticConfig
from pipeline.images import decode_png
from pipeline.predictions import read_listed_videos, read_results
from pipeline.query_cache import QueryCache
from pipeline.shards import ShardSet
from tests.runs import here, inferred, scored

pytestmark = pytest.mark.slow

SHORT = {"steps": 2, "log_every": 1, "checkpoint_every": 2}


def short(recipe: Recipe, folder: Path, *, size=(64, 64), **changes) -> Recipe:
    """Two steps a stage, batches of two."""
    one = recipe.stage_one
    two = recipe.stage_two
    if two is not None:
        two = replace(two, fit=replace(two.fit, **SHORT), input=replace(two.input, batch_size=2, clips=3))
    plain = AugmentConfig(size=size, scale=(1, 1), crop=False, color=False)
    return resolved(replace(
        recipe, folder=str(folder), shards=replace(recipe.shards, clip_frames=8),
        stage_one=replace(one, fit=replace(one.fit, **SHORT),
                          input=replace(one.input, batch_size=2, workers=0, augment=plain)),
        stage_two=two, **changes))


def with_classes(recipe: Recipe, count: int) -> Recipe:
    one = recipe.stage_one
    two = recipe.stage_two
    return replace(recipe, stage_one=replace(one, segmenter=replace(one.segmenter, num_classes=count)),
                   stage_two=replace(two, head=replace(two.head, num_classes=count)))


def predictions(recipe: Recipe, mode: str) -> Path:
    (folder,) = (recipe.run_folder / "scores" / mode / "predictions").iterdir()
    return folder


def test_tracks_go_down_every_verb_and_come_back_from_the_file_for_the_server(tmp_path):
    recipe = here(short(find_recipe("tiny_vis"), tmp_path / "run"))
    recipe = replace(recipe, world=replace(recipe.world, videos_train=4, videos_val=3))
    for verb in (make_shards, train_stage_one, cache_queries, train_stage_two):
        verb.main(recipe)
    dataset = open_dataset(replace(recipe.dataset, root=str(recipe.data_root), split="valid"))
    listed = read_listed_videos(dataset.annotations)
    for mode in ("near_online", "offline"):
        said = evaluate.main(scored(recipe, mode=mode))
        assert (said["videos"], said["frames"], said["skipped"]) == (3, 21, [])
        assert 0 <= said["ap"] <= said["ap50"] <= 100
        results = predictions(recipe, mode) / "results.zip"
        tracks = read_results(results, videos=listed, classes=dataset.classes)
        assert sum(len(video.tracks) for video in tracks.values()) > 0
        again = evaluate.main(scored(recipe, predictions=str(results)))
        assert again["ap"] == pytest.approx(said["ap"], abs=1e-9)
        assert again["ar10"] == pytest.approx(said["ar10"], abs=1e-9)


@pytest.mark.long
def test_clips_of_their_own_sizes_go_down_every_verb_and_a_finished_run_keeps_its_resize_rule(tmp_path):
    """Nothing is cropped, batches and augmented views have several sizes, and the test size is another one."""
    recipe = short(find_recipe("tiny_vis"), tmp_path / "run")
    one = recipe.stage_one
    augment = AugmentConfig(size=None, short_side=(32, 64, 96), scale=(1, 1), pad_to=32, interpolation="opencv")
    resize = ResizeConfig(short_side=80, long_side=120, interpolation="opencv")
    recipe = here(replace(
        recipe, world=replace(recipe.world, videos_train=4, videos_val=2, height=48, width=80),
        stage_one=replace(one, input=replace(one.input, augment=augment)), cache=replace(recipe.cache, views=3),
        inference=replace(recipe.inference, resize=resize)))
    for verb in (make_shards, train_stage_one, cache_queries, train_stage_two):
        verb.main(recipe)
    assert 0 <= evaluate.main(scored(recipe, mode="offline"))["ap"] <= 100
    system = load_system(recipe.run_folder)
    assert (system.size, system.resize) == (None, resize)
    shards = ShardSet(recipe.shards_of("valid"))
    source = StoredVideoSource(shards, shards.videos[0])
    (clip, prediction), *_ = system.clip_predictions(source)
    assert clip.geometry.resized == (72, 120)
    assert clip.frames.shape[-2:] == (96, 128)
    assert prediction.mask_logits.shape[-2:] == (24, 32)
    assert system.predict(source).tracks.size == (48, 80)


@pytest.mark.long
def test_real_instance_videos_go_down_every_verb_and_none_of_their_frames_is_lost(tmp_path, real_data):
    root = real_data / "real_vis"
    frames = {video["file_names"][0].split("/")[0]: len(video["file_names"])
              for video in json.loads((root / "instances.json").read_text())["videos"]}
    recipe = short(find_recipe("tiny_vis"), tmp_path / "run", size=(96, 160), world=None,
                   dataset=DatasetConfig(name="youtube_vis", root=str(root)))
    recipe = here(with_classes(recipe, len(open_dataset(recipe.dataset).classes)))
    made = make_shards.main(recipe)
    assert (made["train"]["frames"], made["train"]["skipped"]) == (sum(frames.values()), {})
    train_stage_one.main(recipe)
    cached = QueryCache(cache_queries.main(recipe)["cache"])
    assert {video: sum(clip.num_frames for clip in cached.read(group))
            for video, (group,) in cached.videos.items()} == frames
    train_stage_two.main(recipe)

    labelled = evaluate.main(scored(recipe, mode="offline", split="train"))
    assert (labelled["videos"], labelled["frames"]) == (len(frames), sum(frames.values()))
    assert 0 <= labelled["ap"] <= 100
    with av.open(labelled["overlays"][0]) as drawn:
        first = ShardSet(recipe.shards_of("train")).videos[0]
        assert sum(1 for _ in drawn.decode(video=0)) == len(first.frames)

    unlabelled = evaluate.main(scored(recipe, mode="near_online"))       # a valid split has no annotations
    assert unlabelled["ap"] is None
    dataset = open_dataset(replace(recipe.dataset, split="valid"))
    listed = read_listed_videos(dataset.annotations)
    assert unlabelled["videos"] == len(listed)
    read_results(predictions(recipe, "near_online") / "results.zip", videos=listed, classes=dataset.classes)


@pytest.mark.long
def test_one_run_makes_panoptic_video_tracks_and_semantic_video(tmp_path):
    recipe = here(short(find_recipe("synthetic_vps"), tmp_path / "run"))
    recipe = replace(recipe, world=SyntheticConfig(videos_train=4, videos_val=2, frames=7, height=64, width=64),
                     inference=replace(recipe.inference, panoptic=TubePanopticConfig(score=0.0, overlap=0.0)))
    make_shards.main(recipe)
    train_stage_one.main(recipe)                                         # with linking losses, on pairs of clips
    lines = (recipe.run_folder / "stage_one" / "progress.jsonl").read_text().splitlines()
    progress = [json.loads(line) for line in lines]
    assert {"contrast", "cosine", "class", "mask", "dice"} <= {name for row in progress for name in row["losses"]}
    near = evaluate.main(inferred(recipe, results=("panoptic",)))
    said = evaluate.main(inferred(recipe, results=("panoptic", "tracks", "semantic")))
    assert (said["vpq"], said["stq"]) == (near["vpq"], near["stq"])
    assert all(0 <= said[name] <= 100 for name in ("vpq", "stq", "ap", "miou"))
    folders = [folder for folder in (recipe.run_folder / "scores" / "near_online" / "predictions").iterdir()
               if (folder / "semantic").is_dir()]
    (folder,) = folders
    for kind in ("pan_pred", "semantic"):
        assert len(list((folder / kind).rglob("*.png"))) == 14
    known = {info.dataset_id + 1 for info in ShardSet(recipe.shards_of("val")).classes.classes}
    drawn = decode_png(next((folder / "semantic").rglob("*.png")).read_bytes())
    assert set(np.unique(drawn).tolist()) <= known       # no pixel is left without a class
    assert json.loads((folder / "tracks.json").read_text())


def test_semantic_video_trains_and_scores_on_maps_without_objects(tmp_path):
    recipe = here(short(find_recipe("synthetic_vss"), tmp_path / "run"))
    recipe = replace(recipe, world=replace(recipe.world, videos_train=4, videos_val=2, frames=9, height=64, width=64))
    make_shards.main(recipe)
    train_stage_one.main(recipe)
    said = evaluate.main(recipe)
    assert 0 <= said["miou"] <= 100
    assert 0 <= said["mvc8"] <= 100
    assert said["mvc16"] is None        # every video is shorter
    assert "vpq" not in said
