"""Video-kMaX itself through every verb: pseudo-videos of stills, then videos that start there, linked in three ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jobs import evaluate, make_shards, predict, train_stage_one, train_stage_two, verify_shards
from jobs.models import load_weights
from jobs.recipes import find_recipe, video_kmax
from jobs.recipes.schema import Recipe
from pipeline.shards import ShardSet
from tests.runs import EVERYTHING, here, inferred, scored
from tests.test_tube_link_run import short

pytestmark = pytest.mark.slow

SURE = replace(EVERYTHING, sure_first=True)     # as the released code merges; with the thresholds of a short training


def small_run(name: str, folder: Path) -> Recipe:
    """The tiny network on a tiny world, with the losses, the drawing and the linking of an official recipe."""
    official = find_recipe(name)
    tiny = short(replace(find_recipe("tiny"), stage_two=None), folder)
    one = official.stage_one
    drawing = replace(one.input, batch_size=2, workers=0, augment=replace(one.input.augment, size=(64, 64)))
    losses = replace(one.losses, semantic_weight=0.0, pixel_samples=64)
    fit = tiny.stage_one.fit
    world = replace(tiny.world, videos_train=4, videos_val=2)
    images = official.dataset.name == "coco_panoptic"
    if images:
        world = replace(world, layout="coco", frames=1)
    return here(replace(
        tiny, dataset=replace(tiny.dataset, name=official.dataset.name), world=world,
        stage_one=replace(tiny.stage_one, losses=losses, input=drawing, fit=fit),
        inference=replace(official.inference, panoptic=EVERYTHING if images else SURE)))


@pytest.mark.long
def test_stills_and_videos_go_down_every_verb_and_each_way_of_linking_has_scores_of_its_own(tmp_path):
    images = small_run("coco_video_kmax_r50", tmp_path / "coco")
    for verb in (make_shards, verify_shards, train_stage_one):
        verb.main(images)
    batch = next(train_stage_one.build_stage(images).batches(0, 1, 0))
    assert batch.frames.shape[1] == 2
    assert not torch.equal(batch.frames[:, 0], batch.frames[:, 1])
    assert evaluate.main(images)["frames"] == len(ShardSet(images.shards_of("val")).videos)

    recipe = small_run("vipseg_original_video_kmax_r50", tmp_path / "run")
    recipe = replace(recipe, stage_one=replace(recipe.stage_one, start_from=str(images.segmenter_folder)))
    make_shards.main(recipe)
    started = train_stage_one.build_model(recipe).state_dict()
    assert all(torch.equal(started[name], weight) for name, weight in load_weights(images.segmenter_folder).items())
    assert train_stage_one.main(recipe)["steps"] == 2
    linkers = {"memory_buffer": recipe.inference.association, **video_kmax.VARIANTS}
    for kind, association in linkers.items():
        panoptic = EVERYTHING if kind == "hungarian" else SURE
        scores = evaluate.main(inferred(recipe, association=association, panoptic=panoptic))
        assert (scores["videos"], scores["frames"], scores["skipped"]) == (2, 14, [])
        assert association.kind == kind
    folders = {folder.name for folder in (recipe.run_folder / "scores").iterdir()}
    assert folders == {"near_online", "near_online_memory_buffer", "near_online_stitching"}
    video = next((recipe.data_root / "images").iterdir())
    (said,) = predict.main(replace(recipe, predict=replace(recipe.predict, input=str(video))))["videos"]
    assert said["frames"] == 7
    with pytest.raises(ValueError, match="has no stage two"):
        train_stage_two.main(recipe)


def test_single_frames_go_down_every_verb_too(tmp_path):
    recipe = small_run("vipseg_original_video_kmax_r50_online", tmp_path / "run")
    make_shards.main(recipe)
    assert train_stage_one.main(recipe)["steps"] == 2
    assert evaluate.main(scored(recipe, mode="near_online"))["frames"] == 14
