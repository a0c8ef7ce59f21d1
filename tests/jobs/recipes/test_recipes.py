"""Recipes: each is found by its name, says what to expect, describes the official network, and takes a step."""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs.config import differences, to_json
from jobs.kept_predictions import scores_folder
from jobs.recipes import RECIPES, ablations, coco, find_recipe, tube_link, video_kmax, vipseg, vita, youtube_vis
from jobs.recipes.schema import JointConfig, Recipe, StageOneConfig, StageTwoConfig
from jobs.train_stage_one import losses_on_clips
from jobs.training.freezing import freeze
from jobs.training.optimizer import OptimizerConfig, build_optimizer, parameter_groups
from model.contracts import ClipBatch, ClipTargets, PixelEvidence, VideoQueries
from model.converters.official import has_head
from model.cross_clip.tube_link import COPIED_HEADS, TubeLinkHead
from model.cross_clip.vita import VitaHeadConfig
from model.joint import DetectorWithHead
from model.losses.cross_clip import CrossClipCriterion
from model.losses.joint import JointCriterion
from model.segmenters import SegmenterConfig
from pipeline.datasets import classes_coco, classes_vspw, classes_youtube_vis, kitti_step
from tests.conftest import SHARED
from tests.small_recipes import small

# What a recipe is called, and where its files lie.
NOT_THE_NETWORK = ("name", "about", "folder", "stage_one_from", "shards_from")


def changes(recipe: Recipe, other: Recipe) -> list[str]:
    return differences(json_of(recipe), json_of(other))


@cache
def json_of(recipe: Recipe) -> dict[str, Any]:
    return {key: value for key, value in to_json(recipe).items() if key not in NOT_THE_NETWORK}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_carries_the_name_it_is_found_by_and_arrives_whole_at_a_worker(name):
    recipe = find_recipe(name)
    assert recipe.name == name
    assert pickle.loads(pickle.dumps(recipe)) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_knows_the_classes_and_the_labelled_splits_of_its_data_set(name):
    recipe = find_recipe(name)
    tables = {**classes_coco.TABLES, **classes_youtube_vis.TABLES, "vspw": classes_vspw.TABLE,
              "vipseg": classes_vspw.TABLE, "kitti_step": kitti_step.TABLE}      # VIPSeg and VSPW share their classes
    dataset = recipe.dataset.name
    if recipe.world is None:
        assert recipe.stage_one.segmenter.num_classes == len(tables[dataset])
    assert recipe.evaluation.split == ("valid" if dataset in (*classes_youtube_vis.TABLES, "youtube_vis") else "val")


@pytest.mark.parametrize("name", RECIPES)
def test_rates_warm_up_and_drop_within_the_run(name):
    recipe = find_recipe(name)
    for stage in filter(None, (recipe.stage_one, recipe.stage_two)):
        turns = (stage.optimizer.warmup_steps, *stage.optimizer.milestones, stage.fit.steps)
        assert list(turns) == sorted(set(turns))


@pytest.mark.parametrize(("backbone", "scores"), [
    ("r50", (42.7, 46.1, 46.7)), ("convnext_l", (52.7, 56.2, 57.1)), ("convnextv2_l", (None, 57.7, 58.0))])
def test_every_row_of_table_1_is_a_recipe_that_names_its_score(backbone, scores):
    for suffix, score in zip(("", "_near_online", "_offline"), scores):
        name = f"vipseg_video_kmax_{backbone}{suffix}"
        assert (name in RECIPES) == (score is not None)
        if score is not None:
            assert f"expect {score} VPQ {'offline' if suffix == '_offline' else 'near-online'}" in RECIPES[name]().about


@pytest.mark.parametrize("backbone", vipseg.SETTINGS)
def test_the_offline_row_goes_on_in_the_run_of_the_near_online_row(backbone):
    near_online = vipseg.near_online(backbone)
    offline = vipseg.offline(backbone)
    assert offline.run_folder == near_online.run_folder
    changed = {line.split(":")[0] for line in changes(offline, near_online)}
    merging = {name for name in changed if name.startswith("inference.panoptic.")}      # thresholds of its own, if any
    assert changed - merging == {"evaluation.mode", "predict.mode"}
    assert bool(merging) == (vipseg.SETTINGS[backbone].merge[0] != vipseg.SETTINGS[backbone].merge[1])


@pytest.mark.parametrize("backbone", vipseg.SETTINGS)
def test_a_video_run_starts_where_the_pre_training_of_the_same_network_ends(backbone):
    for video, image in ((vipseg.baseline(backbone), coco.kmax(backbone, msda=False)),
                         (vipseg.near_online(backbone), coco.kmax(backbone, msda=True))):
        started = video.stage_one
        trained = image.stage_one
        assert started.start_from == f"runs/{image.name}/stage_one/model"
        assert trained.segmenter.backbone.name.split(".")[0] == started.segmenter.backbone.name
        learnt, fresh = (small_weights(small(stage.segmenter)).keys() for stage in (trained, started))
        assert learnt <= fresh
        assert all(name.startswith(("within_clip.trajectory_stacks.", "within_clip.clip_level_embedding"))
                   for name in fresh - learnt)


def test_images_of_coco_fill_the_network_when_they_are_scored_and_frames_of_vipseg_are_never_enlarged():
    """kMaX-DeepLab scales the longer side to 1281 (MIN_SIZE_TEST, MAX_SIZE_TEST); MaXTron only ever shrinks."""
    assert all(recipe().inference.enlarge for recipe in coco.RECIPES.values())
    assert not any(recipe().inference.enlarge for recipe in vipseg.RECIPES.values())


def test_every_published_row_of_tube_link_and_maxtron_is_a_recipe_that_names_its_score():
    """MaXTron, tables 2a to 2c; Tube-Link, tables 3 to 7, 14 and 15."""
    abouts = {name: recipe().about for name, recipe in (youtube_vis.RECIPES | tube_link.RECIPES).items()}
    rows = {name: about.split("expect ")[1] for name, about in abouts.items() if "no published score" not in about}
    assert abouts.keys() - rows.keys() == {"vspw_2_frames_tube_link_swin_l"}
    instances = {
        ("youtube_vis_2019", "r50"): ("52.8 AP",), ("youtube_vis_2019", "swin_l"): ("64.6 AP",),
        ("youtube_vis_2021", "r50"): ("47.9 AP", "48.4 AP", "48.5 AP"),
        ("youtube_vis_2021", "swin_l"): ("58.4 AP", "58.8 AP", "59.1 AP"),
        ("youtube_vis_2022", "r50"): tuple(f"{score} AP of the long videos" for score in (31.1, 36.5, 37.0)),
        ("youtube_vis_2022", "swin_l"): tuple(f"{score} AP of the long videos" for score in (34.2, 35.9, 38.9)),
        ("ovis", "r50"): ("29.5 AP", "27.6 AP", "28.3 AP"), ("ovis", "swin_l"): ("33.3 AP", "39.1 AP", "39.8 AP")}
    modes = {"": "near-online", "_near_online": "near-online", "_offline": "offline"}
    expected = {f"{data}_tube_link_{backbone}{suffix}": f"{score} {modes[suffix]}"
                for (data, backbone), scores in instances.items() for suffix, score in zip(modes, scores)}
    expected |= {"vipseg_tube_link_r50": "39.2 VPQ near-online", "vipseg_tube_link_swin_b": "50.4 VPQ near-online",
                 "vipseg_tube_link_stdc1": "30.6 VPQ near-online", "vipseg_tube_link_stdc2": "31.4 VPQ near-online",
                 "kitti_step_tube_link_r50": "51 VPQ near-online", "kitti_step_tube_link_swin_b": "56 VPQ near-online",
                 "vspw_tube_link_r50": "42.3 mIoU", "vspw_tube_link_swin_l": "59.7 mIoU",
                 "vipseg_vss_tube_link_r50": "43.4 mIoU", "vipseg_vss_tube_link_swin_b": "62.3 mIoU",
                 "vipseg_vss_tube_link_swin_l": "64.9 mIoU"}
    assert rows.keys() == expected.keys()
    assert all(rows[name].startswith(score) for name, score in expected.items())


@pytest.mark.parametrize(("backbone", "near_online", "online"), [("r50", 38.2, 36.8), ("convnext_l", 51.9, 49.4)])
def test_the_released_models_of_video_kmax_are_recipes_that_name_their_scores(backbone, near_online, online):
    """The README of dlsrbgg33/video_kmax. Both start from COCO: from pseudo-videos, and from images."""
    video = find_recipe(f"vipseg_original_video_kmax_{backbone}")
    single = find_recipe(f"{video.name}_online")
    assert f"expect {near_online} VPQ near-online" in video.about
    assert f"expect {online} VPQ online" in single.about
    for recipe, start, frames, overlap, accept in ((video, f"coco_video_kmax_{backbone}", 2, 1, 0.7),
                                                   (single, f"coco_kmax_{backbone}", 1, 0, 0.5)):
        assert recipe.starts == {"stage_one.start_from": f"runs/{start}/stage_one/model"}
        linking = recipe.inference.association
        assert (recipe.stage_one.input.clip_frames, linking.overlap, linking.accept, linking.patience) == (
            frames, overlap, accept, 10)
        image = find_recipe(start).stage_one
        learnt, fresh = (small_weights(small(stage.segmenter)).keys() for stage in (image, recipe.stage_one))
        assert {name for name in learnt if not name.startswith("semantic_head.")} == fresh


def test_other_ways_of_linking_change_nothing_else_and_keep_their_scores_apart():
    video = find_recipe("vipseg_original_video_kmax_r50")
    for variant in video_kmax.VARIANTS:
        recipe = find_recipe(f"{video.name}_{variant}")
        assert recipe.inference.association.kind == variant
        parts = ("inference.association", *(("inference.panoptic",) if variant == "hungarian" else ()))
        assert all(change.startswith(parts) for change in changes(video, recipe))
        assert recipe.run_folder == video.run_folder
        assert scores_folder(recipe) != scores_folder(video)


def test_every_published_row_of_vita_is_a_recipe_that_names_its_score():
    """Tables 1 and 2; windows (3), parts (5), pruning (6) and frozen detectors (7) on YouTube-VIS 2019."""
    rows = {name: float(recipe().about.split("expect ")[1].removesuffix(" AP offline"))
            for name, recipe in vita.RECIPES.items() if not name.startswith("coco_")}
    r50 = "youtube_vis_2019_vita_r50"
    assert rows == {
        r50: 49.8, "youtube_vis_2019_vita_r101": 51.9, "youtube_vis_2019_vita_swin_l": 63.0,
        "youtube_vis_2021_vita_r50": 45.7,
        "youtube_vis_2021_vita_swin_l": 57.5, "ovis_vita_r50": 19.6, "ovis_vita_swin_l": 27.7,
        f"{r50}_frozen": 40.9, "youtube_vis_2019_vita_r101_frozen": 43.2,
        "youtube_vis_2019_vita_swin_l_frozen": 53.4, f"{r50}_window_3": 49.4,
        f"{r50}_window_12": 50.0, f"{r50}_window_all": 50.1, f"{r50}_keep_0_75": 49.7, f"{r50}_keep_0_50": 48.9,
        f"{r50}_keep_0_25": 48.1,
        "ovis_vita_r50_parts_36_greedy": 18.8, "ovis_vita_r50_parts_36_hungarian": 18.4,
        "ovis_vita_r50_parts_48_greedy": 18.8, "ovis_vita_r50_parts_48_hungarian": 19.1}


def test_a_frozen_detector_keeps_its_weights_and_an_ablation_of_vita_changes_one_field():
    joint = find_recipe("youtube_vis_2019_vita_r50")
    frozen = find_recipe("youtube_vis_2019_vita_r50_frozen")
    assert not frozen.stage_one.train
    assert frozen.stage_one.start_from == joint.stage_one.start_from
    assert frozen.stage_two.start_from == joint.stage_one.joint.start_from
    assert frozen.stage_two.head == joint.stage_one.joint.head
    for suffix, field in (("window_3", "window"), ("window_all", "window"), ("keep_0_50", "keep")):
        ablation = find_recipe(f"youtube_vis_2019_vita_r50_{suffix}")
        assert changes(joint, ablation)
        assert all(change.startswith("inference.head") for change in changes(joint, ablation))
        assert getattr(ablation.inference.head, field) is not None
        assert ablation.run_folder == joint.run_folder
        assert scores_folder(ablation) != scores_folder(joint)


@pytest.mark.parametrize("offline", [partial(vipseg.offline, "r50"), partial(vipseg.offline, "convnextv2_l"), partial(
    youtube_vis.offline, "ovis", "r50"), partial(youtube_vis.offline, "youtube_vis_2022", "swin_l")])
def test_the_variant_of_an_offline_run_starts_at_the_near_online_result_and_reads_the_cache_of_that_run(offline):
    """Published rows start as the released code does (post-norm); on Video-kMaX the copied norms train there too."""
    official = offline()
    variant = find_recipe(f"{official.name}_near_online_start")
    changed = {line.split(": ")[0]: line.split(": ")[1] for line in changes(official, variant)}
    norms = {"stage_two.head.train_norms": "True != False"} if official.name.startswith("vipseg") else {}
    assert changed == {"stage_two.head.start": "'official' != 'near_online'", **norms}
    assert official.stage_two == find_recipe(official.name.replace("_offline", "_near_online")).stage_two
    assert cache_source_folders(variant) == cache_source_folders(official)
    assert variant.run_folder != official.run_folder


@pytest.mark.parametrize("name", [name for name in vita.RECIPES if not name.startswith("coco_")])
def test_detector_and_head_of_vita_start_from_its_own_pre_training(name):
    """The same networks, but for the rows of classes; both are made by the recipe that the starts name."""
    video = find_recipe(name)
    image = find_recipe(f"coco_vita_{next(backbone for backbone in vita.QUERIES if backbone in name)}")
    assert set(video.starts.values()) == {str(folder.relative_to(Path().absolute()))
                                          for folder in (image.segmenter_folder, image.head_folder)}
    one = image.stage_one
    assert one.input.clip_frames == 1
    assert replace(one.joint.head, num_classes=40) == replace(video.head, num_classes=40)
    started = video.stage_one.segmenter
    assert replace(one.segmenter, num_classes=40, backbone=started.backbone) == replace(started, num_classes=40)
    assert one.segmenter.backbone.name.split(".")[0] == started.backbone.name


@pytest.mark.parametrize(("name", "start"), [
    ("youtube_vis_2019_tube_link_r50", "instance_r50"), ("youtube_vis_2019_tube_link_swin_l", "instance_swin_l"),
    ("youtube_vis_2021_tube_link_swin_l", "instance_swin_l"), ("youtube_vis_2022_tube_link_swin_l", "instance_swin_l"),
    ("ovis_tube_link_r50", "instance_r50"), ("ovis_tube_link_swin_l", "panoptic_swin_l"),
    ("youtube_vis_2021_tube_link_r50_near_online", "instance_r50"),
    ("youtube_vis_2021_tube_link_swin_l_near_online", "panoptic_swin_l"),
    ("youtube_vis_2022_tube_link_swin_l_offline", "panoptic_swin_l"), ("ovis_tube_link_swin_l_near_online",
                                                                       "panoptic_swin_l"),
    ("vipseg_tube_link_swin_b", "panoptic_swin_b"), ("vspw_tube_link_swin_l", "panoptic_swin_l")])
def test_tube_link_and_maxtron_start_from_the_coco_task_of_the_released_files(name, start):
    assert find_recipe(name).starts == {"stage_one.start_from": f"runs/coco_mask2former_{start}/stage_one/model"}


@pytest.mark.parametrize(("data", "reach", "videos_per_still"), [     # as in the released files
    ("youtube_vis_2019", 20, 0.75), ("youtube_vis_2021", 8, 0.8), ("ovis", 8, 0.25)])
def test_clips_of_cocos_stills_train_beside_the_videos_of_vita(data, reach, videos_per_still):
    one = vita.vita(data, "r50").stage_one
    assert one.stills.dataset.classes == data
    assert (1 - one.stills.share) / one.stills.share == pytest.approx(videos_per_still)
    camera = one.input.pseudo_video
    assert (one.input.reach, camera.angle, camera.of_stills, camera.of_videos) == (reach, 15, 0.5, 0.5)
    assert camera.motion == "straight"
    assert vita.frozen("youtube_vis_2019", "r50").stage_one.stills is None


def test_parts_of_vita_that_do_not_fit_are_refused():
    recipe = find_recipe("tiny_vita")
    one = recipe.stage_one
    two = recipe.stage_two
    for stage_one, stage_two, complaint in (
            ({"input": replace(one.input, clip_frames=2)}, {}, "takes clips of one frame"),
            ({}, {"head": replace(two.head, frame_queries=9)}, r"frame_queries=9 does not fit .* num_queries=16"),
            ({}, {"head": replace(two.head, similarity=None)}, "do not go together"),
            ({"joint": JointConfig(head=two.head)}, {}, "there is no stage two"),
            ({"train": False}, {}, r"name it in stage_one\.start_from")):
        with pytest.raises(ValueError, match=complaint):
            replace(recipe, stage_one=replace(one, **stage_one), stage_two=replace(two, **stage_two))
    kmax = find_recipe("tiny")
    with pytest.raises(ValueError, match=r"joint\.losses is VitaLossConfig, but .* VideoKMaxConfig train with"):
        replace(kmax, stage_one=replace(kmax.stage_one, joint=JointConfig(head=two.head)), stage_two=None)


@pytest.mark.parametrize("row", [row for row, of in youtube_vis.ROWS.items() if of.maxtron], ids="-".join)
def test_offline_instances_go_on_in_the_run_of_near_online_ones(row):
    near_online = youtube_vis.near_online(*row)
    offline = youtube_vis.offline(*row)
    assert offline.run_folder == near_online.run_folder
    changed = {line.split(":")[0] for line in changes(offline, near_online)}
    shorter = youtube_vis.ROWS[row].maxtron.offline_frames is not None
    lengths = {"inference.clip_frames", "cache.window_frames"} if shorter else set()
    assert changed == {"evaluation.mode", "predict.mode"} | lengths


@pytest.mark.parametrize(("name", "frames"), [      # stage one, each clip and the window of stage two
    ("youtube_vis_2021_tube_link_r50", (5, 3, 9)), ("youtube_vis_2021_tube_link_swin_l", (6, 6, 24)),
    ("youtube_vis_2022_tube_link_r50", (4, 4, 16)), ("youtube_vis_2022_tube_link_swin_l", (6, 6, 36)),
    ("ovis_tube_link_r50", (4, 4, 24)), ("ovis_tube_link_swin_l", (4, 4, 16))])
def test_clips_of_maxtron_are_as_long_as_in_the_released_files(name, frames):
    recipe = find_recipe(f"{name}_offline")
    trained = recipe.stage_one.input.clip_frames
    clip = recipe.inference.clip_frames or trained
    assert (trained, clip, recipe.stage_two.input.clips * clip) == frames


@pytest.mark.parametrize("name", youtube_vis.RECIPES | tube_link.RECIPES)
def test_a_video_run_of_tube_link_starts_where_its_pre_training_ends(name):
    """Of the same backbone; what is new belongs to video alone. KITTI-STEP is not pre-trained on COCO."""
    one = find_recipe(name).stage_one
    if name.startswith("kitti_step"):
        assert not one.start_from
        assert one.segmenter.backbone.pretrained
        return
    image = find_recipe(one.start_from.removeprefix("runs/").removesuffix("/stage_one/model")).stage_one
    assert image.segmenter.backbone.name.split(".")[0] == one.segmenter.backbone.name
    learnt, fresh = (small_weights(small(stage.segmenter)).keys() for stage in (image, one))
    assert learnt <= fresh
    assert all(name.startswith(("pixel_decoder.trajectories.", "pixel_decoder.clip_level_embedding", "linking."))
               for name in fresh - learnt)


@pytest.mark.parametrize("name", tube_link.RECIPES)
def test_panoptic_recipes_reserve_the_same_queries_everywhere_and_semantic_ones_none(name):
    one = find_recipe(name).stage_one
    things = {"vipseg": 58, "kitti_step": 2}.get(name.split("_tube_link")[0])
    if things is None:
        assert one.segmenter.linking is one.linking is None
        assert not one.segmenter.stuff_classes + one.losses.stuff_classes
    else:
        assert one.segmenter.stuff_classes == one.losses.stuff_classes == one.linking.stuff_classes
        assert len(set(one.segmenter.stuff_classes)) == one.segmenter.num_classes - things


def test_the_things_of_kitti_step_are_those_of_its_table():
    things = set(range(19)) - set(tube_link.KITTI_STEP.stuff_classes)
    assert {kitti_step.TABLE.classes[index].name for index in things} == {"person", "car"}
    assert things == {11, 13}


def test_the_things_of_vipseg_are_those_its_own_file_lists(real_data):
    categories = json.loads((real_data / "real_vps" / "panoVIPSeg_categories.json").read_text())
    assert {position for position, row in enumerate(categories) if not row["isthing"]} == set(
        tube_link.VIPSEG.stuff_classes)


def frozen_segmenter(name: str) -> nn.Module:
    """The segmenter of a recipe in training mode, with its frozen parts, without memory."""
    one = find_recipe(name).stage_one
    config = replace(one.segmenter, backbone=replace(one.segmenter.backbone, pretrained=False))
    with torch.device("meta"):
        segmenter = config.build()
    freeze(segmenter, one.optimizer.frozen)
    return segmenter.train()


def moving_parts(name: str) -> set[str]:
    """Modules of the backbone that learn at all."""
    segmenter = frozen_segmenter(name)
    names = {weight: name for name, weight in segmenter.named_parameters()}
    groups = parameter_groups(segmenter, find_recipe(name).stage_one.optimizer)
    moving = [names[weight] for group in groups for weight in group["params"]]
    assert all(name in moving for name in names.values() if not name.startswith("backbone."))
    return {name.removeprefix("backbone.").rsplit(".", 1)[0] for name in moving if name.startswith("backbone.")}


def test_the_frozen_stages_of_swin_keep_their_weights():
    """VSPW, Swin-L: all of the backbone but the last stage and its norm; the step down to it stays too."""
    parts = moving_parts("vspw_tube_link_swin_l")
    assert {part.split(".blocks.")[0] for part in parts} == {"network.layers_3", "output_norms.3"}


def test_paths_are_dropped_in_the_last_stage_of_swin_alone_where_the_others_are_frozen():
    """mmdetection puts frozen stages in evaluation mode at every call of `train`."""
    network = frozen_segmenter("vspw_tube_link_swin_l").backbone.network
    active = {name.split(".")[0] for name, module in network.named_modules()
              if getattr(module, "drop_prob", 0) and module.training}
    assert active == {"layers_3"}


@pytest.mark.parametrize("name", ["coco_mask2former_instance_r50", "youtube_vis_2019_vita_r50"])
def test_the_norms_of_resnet_keep_their_statistics_and_their_weights(name):
    norms = [module for module in frozen_segmenter(name).backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 53
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)


def test_resnet_learns_all_but_its_norms_on_coco_and_these_too_in_video():
    image = moving_parts("coco_mask2former_instance_r50")
    video = moving_parts("youtube_vis_2021_tube_link_r50")
    norms = {part for part in video if ".bn" in part or part.endswith(".downsample.1")}
    assert len(video) == 2 * len(norms) == 106          # 53 convolutions, each with a norm
    assert image == video - norms


@pytest.mark.parametrize("ablation", ablations.ABLATIONS, ids=lambda ablation: ablation.name)
def test_an_ablation_changes_one_field_and_names_its_score(ablation):
    recipe = find_recipe(f"{ablations.PREFIX}{ablation.name}")
    field = ablation.change.partition("=")[0]
    assert [line.split(":")[0] for line in changes(recipe, ablation.base())] == [field]
    assert f"expect {ablation.vpq} VPQ" in recipe.about
    assert recipe.run_folder != ablation.base().run_folder
    shared = cache_source_folders(recipe) == cache_source_folders(ablation.base())
    assert shared == (field.split(".")[0] != "stage_one")       # other rows begin after it


def cache_source_folders(recipe: Recipe) -> tuple[Path, ...]:
    return recipe.shards_of("train"), recipe.segmenter_folder, recipe.stage_one_run


def test_the_ablations_are_those_of_maxtron_s_tables_5_and_6_and_of_tube_link_s_table_8():
    """What differs from the official R50 run, and the score; rows in grey and the baseline are recipes themselves."""
    bases = {"5": vipseg.near_online("r50"), "6": vipseg.offline("r50"), "8": tube_link.panoptic("vipseg", "r50")}
    rows = {(ablation.table[0], ablation.vpq, *(line.split(": ")[0].split(".")[-1] + "=" + line.split(": ")[1].split(
        " != ")[0] for line in changes(ablation(), bases[ablation.table[0]]))) for ablation in ablations.ABLATIONS}
    assert rows == {
        ("5", 45.3, "attention='full'", "trajectory_layers_per_block=1"), ("5", 45.4, "trajectory_layers_per_block=1"),
        ("5", 44.7, "blocks=1"), ("5", 45.2, "blocks=3"), ("5", 45.7, "trajectory_layers_per_block=3"),
        ("5", 45.8, "arrangement='sequential'"), ("6", 46.4, "attention='self'"), ("6", 46.5, "aspp=False"),
        ("6", 46.5, "aspp_rates=[1, 2, 5]"), ("6", 46.4, "aspp_rates=[1, 3, 5]"), ("6", 46.7, "layers=6"),
        ("6", 46.2, "layers=8"), ("8", 37.5, "clip_frames=2"), ("8", 39.0, "clip_frames=4"),
        ("8", 38.5, "clip_frames=8"), ("8", 36.8, "clip_frames=2", "link=False"),
        ("8", 35.6, "clip_frames=2", "clip_frames=2"), ("8", 37.0, "clip_frames=2", "clip_frames=6")}


def test_the_baseline_lacks_within_clip_tracking_alone():
    """And with it the rate of its layers; it starts from the pre-training without it."""
    ours = vipseg.baseline("r50").stage_one
    theirs = vipseg.near_online("r50").stage_one
    assert ours.segmenter.within_clip is None
    assert theirs.optimizer.multipliers == (*ours.optimizer.multipliers, ("within_clip.trajectory_stacks", 2.0))
    assert ours == replace(theirs, segmenter=replace(theirs.segmenter, within_clip=None), optimizer=ours.optimizer,
                           start_from="runs/coco_kmax_r50/stage_one/model")


@pytest.mark.parametrize(("layout", "name"), [
    ("kmax_r50_coco", "coco_kmax_r50"),
    ("maxtron_kmax_within_clip_r50_vipseg", "vipseg_video_kmax_r50_near_online"),
    ("maxtron_kmax_within_clip_convnext_large_vipseg", "vipseg_video_kmax_convnext_l_near_online"),
    ("maxtron_kmax_cross_clip_r50_vipseg", "vipseg_video_kmax_r50_offline"),
    ("tubelink_r50_vipseg", "vipseg_tube_link_r50"),
    ("tubelink_r50_ytvis21", "youtube_vis_2021_tube_link_r50"),
    ("maxtron_tubelink_within_clip_r50_ytvis21", "youtube_vis_2021_tube_link_r50_near_online"),
    ("maxtron_tubelink_cross_clip_r50_ytvis21", "youtube_vis_2021_tube_link_r50_offline"),
    ("vita_r50_youtubevis2019", "youtube_vis_2019_vita_r50"),
])
def test_a_recipe_describes_the_official_network_weight_for_weight(layout, name):
    """As many tensors of each number of elements; which is which is what tests/model/converters say."""
    path = SHARED / "parity" / "state_dict_layouts" / f"{layout}.json"
    if not path.is_file():
        pytest.skip("the layouts of official models are not beside this checkout")
    official = json.loads(path.read_text())["weights"]
    recipe = find_recipe(name)
    offline = has_head(official)
    segmenter = recipe.stage_one.segmenter
    segmenter = replace(segmenter, backbone=replace(segmenter.backbone, pretrained=False))
    if offline and hasattr(segmenter, "semantic_head"):
        segmenter = replace(segmenter, semantic_head=None)      # stage two does not keep it
    with torch.device("meta"):
        own = list(segmenter.build().state_dict().values())
        if offline:
            official_start = {"start": "official"} if hasattr(recipe.head, "start") else {}
            head = replace(recipe.head, **official_start).build()
            once = COPIED_HEADS if isinstance(head, TubeLinkHead) else ()   # the same tensors serve both there
            own += [tensor for key, tensor in head.state_dict().items()
                    if not key.startswith(tuple(f"predictor.{name}." for name in once))]
    theirs = Counter(math.prod(shape) for name, (_, shape) in official.items() if not name.endswith("empty_weight"))
    if "vita" in layout:        # detectron2's frozen norms do not count their batches
        own = [tensor for tensor in own if tensor.is_floating_point()]
    assert Counter(tensor.numel() for tensor in own) == theirs


@pytest.mark.parametrize("name", RECIPES)
def test_a_small_version_of_every_recipe_takes_a_step_of_both_stages(name):
    """Each weight is reached by some loss, or several workers could not train it together."""
    recipe = find_recipe(name)
    one = small(recipe.stage_one)
    assert step_of_stage_one(one) == []
    if recipe.stage_two is not None:
        assert step_of_stage_two(one.segmenter, small(recipe.stage_two)) == []


@pytest.mark.parametrize("name", ["youtube_vis_2019_vita_r50", "coco_vita_swin_l", "vipseg_video_kmax_r50_offline",
                                  "youtube_vis_2019_vita_r50_frozen"])
def test_a_recipe_that_trains_in_half_precision_takes_a_step_in_it(name):
    """fp16 as in the public configurations; here in bf16, the half precision of CPUs."""
    recipe = find_recipe(name)
    one = recipe.stage_one
    assert one.fit.precision == "fp16"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert step_of_stage_one.__wrapped__(small(one)) == []
        if recipe.stage_two is not None:
            assert recipe.stage_two.fit.precision == "fp16"
            assert step_of_stage_two.__wrapped__(small(one).segmenter, small(recipe.stage_two)) == []
    assert recipe.inference.precision == ("fp16" if "vita" in name else "fp32")


@cache
def step_of_stage_one(stage: StageOneConfig) -> list[str]:
    """Names of the weights no loss reaches. Recipes that share a stage share the step."""
    torch.manual_seed(0)
    segmenter = stage.segmenter.build().train()
    frames = stage.input.clip_frames
    size = stage.input.augment.size or (64, 64)
    clips = torch.randint(0, 256, (2, frames, 3, *size), dtype=torch.uint8)
    height, width = ((side - 1) // 4 + 1 for side in size)
    owner = torch.randint(0, 4, (frames, height, width))                        # three tubes and void
    targets = ClipTargets(masks=torch.stack([owner == tube for tube in range(3)]), classes=torch.tensor([0, 1, 4]),
                          track_ids=torch.arange(3), void=owner == 3)
    batch = ClipBatch(frames=clips, real_pixels=torch.ones_like(clips[:, :, 0], dtype=torch.bool),
                      targets=(targets, targets), videos=("a", "b"), samples=(0, 1))
    if stage.joint is None:
        return step(segmenter, losses_on_clips(stage, segmenter)(segmenter, batch), stage.optimizer)
    both = DetectorWithHead(segmenter, stage.joint.head.build(), layers=stage.joint.layers)
    criterion = JointCriterion(stage.losses, stage.joint.losses, layers=stage.joint.layers)
    return step(both, criterion(both(batch.frames, batch.real_pixels), batch.targets), stage.optimizer)


@cache
def step_of_stage_two(segmenter: SegmenterConfig, stage: StageTwoConfig) -> list[str]:
    torch.manual_seed(0)
    head = stage.head.build().train()
    embedding = stage.head.embedding
    clips = 3
    queries = 8
    pixels = 40
    frames = isinstance(stage.head, VitaHeadConfig)
    head.initialise_from(small_weights(segmenter))
    channels = stage.head.pixel_dim if frames else embedding
    read = VideoQueries(queries=torch.randn(2, clips, queries, stage.head.dim),
                        mask_embeddings=torch.randn(2, clips, queries, channels + frames),
                        class_logits=torch.randn(2, clips, queries, stage.head.num_classes + 1))
    layers = head(read)
    features = torch.randn(2, clips, channels, pixels)
    evidence = PixelEvidence(
        pixel_features=features.mT, tubes=torch.randint(-1, 3, (2, clips, pixels)),
        weights=torch.ones(2, clips, pixels), classes=(torch.tensor([0, 1, 4]),) * 2,
        areas=(torch.full((clips, 3), 10.0),) * 2)
    masks = [head.mask_logits(layer.mask_embeddings, features) for layer in layers]
    return step(head, CrossClipCriterion(stage.losses)(layers, masks, evidence, queries=read), stage.optimizer)


def step(model: nn.Module, losses: dict[str, Tensor], config: OptimizerConfig) -> list[str]:
    """One step of the recipe's own optimizer; names of the weights without a gradient, and of what is not finite."""
    freeze(model, config.frozen)
    optimizer = build_optimizer(model, config)
    sum(losses.values()).backward()
    missed = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    optimizer.step()
    return missed + [name for name, value in (*losses.items(), *model.named_parameters()) if not value.isfinite().all()]


@cache
def small_weights(config: SegmenterConfig) -> dict[str, Tensor]:
    """Of a small segmenter; without its backbone, which is told by its name and would fill the memory."""
    return {name: weight for name, weight in config.build().state_dict().items()
            if not name.startswith("backbone.")}


def test_stuff_queries_that_differ_between_segmenter_and_losses_are_refused():
    recipe = find_recipe("synthetic_vps")
    with pytest.raises(ValueError, match=r"different stuff_classes: .*\(0, 1\), \(0, 1, 2\)"):
        replace(recipe.stage_one, losses=replace(recipe.stage_one.losses, stuff_classes=(0, 1)))
