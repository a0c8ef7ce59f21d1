"""Verifying finds no fault in the output of make_shards, and names the file where there is one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs import verify_shards
from jobs.verb import guarded
from pipeline.shards import ShardSet
from tests.runs import damage, scored

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_sound_set_has_no_findings(finished_run):
    assert verify_shards.main(finished_run.recipe) == {"train": 0, "val": 0}


def test_a_flipped_byte_is_a_data_error_that_names_the_tar(finished_run, tmp_path, capsys):
    recipe = finished_run.copy(tmp_path / "run")
    shards = ShardSet(recipe.shards_of("val"))
    damage(shards, shards.videos[0])
    assert guarded(verify_shards.main, lambda: recipe) == 3
    printed = capsys.readouterr()
    assert shards.manifest["shards"][shards.videos[0].shard]["name"] in printed.out
    assert "run jobs.make_shards again" in printed.err


def test_a_split_that_only_the_cache_reads_is_looked_at_too(finished_run, tmp_path):
    recipe = finished_run.copy(tmp_path / "run")
    recipe = replace(recipe, cache=replace(recipe.cache, splits=("train", "more")))
    (recipe.run_folder / "shards" / "val").rename(recipe.run_folder / "shards" / "more")
    recipe = scored(recipe, split="train")
    assert verify_shards.main(recipe) == {"train": 0, "more": 0}
