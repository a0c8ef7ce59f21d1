"""Verifying says nothing is wrong with what make_shards made, and names the file when something is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs import verify_shards
from jobs.verb import guarded
from pipeline.shards import ShardSet
from tests.roads import damage, scored

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_sound_set_has_no_findings(road):
    assert verify_shards.main(road.recipe) == {"train": 0, "val": 0}


def test_a_flipped_byte_is_a_data_error_that_names_the_tar(road, tmp_path, capsys):
    recipe = road.copy(tmp_path / "road")
    shards = ShardSet(recipe.shards_of("val"))
    damage(shards, shards.videos[0])
    assert guarded(verify_shards.main, lambda: recipe) == 3
    said = capsys.readouterr()
    assert shards.manifest["shards"][shards.videos[0].shard]["name"] in said.out
    assert "run jobs.make_shards again" in said.err


def test_a_split_that_only_the_cache_reads_is_looked_at_too(road, tmp_path):
    recipe = road.copy(tmp_path / "road")
    recipe = replace(recipe, cache=replace(recipe.cache, splits=("train", "more")))
    (recipe.road / "shards" / "val").rename(recipe.road / "shards" / "more")
    recipe = scored(recipe, split="train")
    assert verify_shards.main(recipe) == {"train": 0, "more": 0}
