"""A run with shards, an untrained segmenter and its query cache, made in this process in about a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jobs.cache_queries import CacheShard, cache_folder, cache_source, open_cache
from jobs.config import override
from jobs.models import save_model, segmenter_card, untrained_segmenter
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from pipeline.datasets import open_dataset
from pipeline.datasets.synthetic import write_world
from pipeline.query_cache import QueryCache, finish_cache
from pipeline.shards import ShardSet, make_shards


def sharded_run(folder: Path, name: str = "tiny") -> Recipe:
    """A recipe on four videos and one more for validation, with shards and an untrained segmenter, in this process."""
    recipe = find_recipe(name)
    recipe = replace(recipe, folder=str(folder), world=replace(recipe.world, videos_train=4, videos_val=1),
                     cluster=replace(recipe.cluster, in_process=True))
    root = write_world(recipe.data_root, recipe.world)
    for split in ("train", "val"):
        dataset = open_dataset(replace(recipe.dataset, root=str(root), split=split))
        make_shards(dataset, recipe.shards_of(split), recipe.shards, split=split)
    shards = ShardSet(recipe.shards_of("train"))
    save_model(recipe.segmenter_folder, untrained_segmenter(recipe).state_dict(),
               segmenter_card(recipe, shards.classes, shards.fingerprint))
    return recipe


def cached(run: Recipe, *settings: str) -> QueryCache:
    """The cache of these settings, as the verb makes it."""
    recipe = override(run, settings)
    actor = CacheShard(recipe=recipe)
    shards = [(split, shard) for split in recipe.cache.splits
              for shard in range(len(ShardSet(recipe.shards_of(split)).manifest["shards"]))]
    parts = [summary for part, (split, shard) in enumerate(shards)
             for summary in actor(split=split, shard=shard, part=part)["parts"]]
    finish_cache(cache_folder(recipe), cache_source(recipe), parts)
    return open_cache(recipe)
