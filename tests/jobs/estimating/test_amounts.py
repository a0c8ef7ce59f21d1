"""Amounts come from shards, a synthetic world or the published size, and from the command line before all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.estimating.amounts import PUBLISHED, amounts_of
from jobs.recipes import RECIPES, find_recipe
from pipeline.datasets import OFFICIAL_CLASSES, DatasetConfig, open_dataset
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.shards import ShardSet, make_shards


def test_a_world_is_as_large_as_its_settings_say():
    amounts = amounts_of(find_recipe("demo"))
    assert (amounts.videos, amounts.frames, amounts.size) == ({"train": 400, "val": 24}, 12, (96, 96))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_has_amounts(name):
    amounts = amounts_of(find_recipe(name))
    assert min(*amounts.videos.values(), amounts.frames, *amounts.size, amounts.bytes_of_frame) > 0


def test_every_official_data_set_has_a_published_size():
    assert set(PUBLISHED) == set(OFFICIAL_CLASSES)


def test_the_command_line_comes_first():
    amounts = amounts_of(find_recipe("vipseg_video_kmax_r50"), videos=10**6, frames=7)
    assert (amounts.videos["train"], amounts.frames) == (10**6, 7)


def test_data_of_ones_own_need_shards_or_numbers(tmp_path):
    recipe = replace(find_recipe("vipseg_video_kmax_r50"), dataset=DatasetConfig(name="davis", root="mine"),
                     folder=str(tmp_path))
    with pytest.raises(ValueError, match="give --videos and --frames"):
        amounts_of(recipe)
    amounts = amounts_of(recipe, videos=35, frames=5)
    assert amounts.videos == {"train": 35, "val": 4}
    assert amounts.frames == 5


def test_finished_shards_tell_what_they_hold(tmp_path):
    world = SyntheticConfig(videos_train=3, videos_val=2, frames=5, height=40, width=48)
    recipe = replace(find_recipe("tiny"), folder=str(tmp_path))
    root = str(write_world(recipe.data_root, world))
    for split in recipe.splits:
        make_shards(open_dataset(replace(recipe.dataset, root=root, split=split)), recipe.shards_of(split),
                    split=split)
    amounts = amounts_of(recipe)
    assert (amounts.videos, amounts.frames, amounts.size) == ({"train": 3, "val": 2}, 5, (40, 48))
    stored = sum(shard["size"] for shard in ShardSet(recipe.shards_of("train")).manifest["shards"])
    assert amounts.bytes_of_frame * 15 == pytest.approx(stored)
