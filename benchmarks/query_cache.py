"""A stage-two step from the query cache against the same step with the frozen segmenter in the loop.

The full size is that of the recipe `demo`; the official one, Video-kMaX R50 at 769x1345 with two clips of two frames,
takes minutes. Both train on the same batch. The baseline makes it from frames: it decodes them, runs the segmenter,
aligns queries and draws the pixel evidence. Then an augmented view with copy-paste is made against the test-time view,
and the bytes of a clip are kept: the price of one more view.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.harness import Results
from jobs.cache_queries import CacheShard, cache_folder, cache_source, open_cache
from jobs.models import save_model, segmenter_card, untrained_segmenter
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.train_stage_two import build_stage
from jobs.training.optimizer import build_optimizer
from pipeline.datasets import open_dataset
from pipeline.datasets.synthetic import write_world
from pipeline.query_cache import collate, finish_cache
from pipeline.shards import ShardSet, make_shards
from pipeline.training_input import CopyPasteConfig


def run(size: Size, results: Results) -> None:
    """Compare the steps and the views, and keep the bytes of a clip."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = prepare(size.recipe(folder))
        batch = recipe.stage_two.input
        cached, in_the_loop = steps(recipe)
        results.compare(f"stage two, {batch.batch_size} videos x {batch.clips} clips, {recipe.name}", ours=cached,
                        baseline=in_the_loop, repeats=size.repeats)
        augmented, at_test_time = views(recipe)
        results.compare(f"one more view with copy-paste, {recipe.name}", ours=augmented, baseline=at_test_time,
                        repeats=size.repeats)
        totals = open_cache(recipe).manifest["totals"]
        results.add(f"a cached clip of a view, {recipe.name}", totals["bytes"] / totals["clips"] / 1000, "kB", **totals)


def toy_recipe(folder: str) -> Recipe:
    """The networks of the recipe `tiny` on a few of its videos."""
    recipe = find_recipe("tiny")
    return replace(recipe, folder=folder, world=replace(recipe.world, videos_train=4, videos_val=1))


def demo_recipe(folder: str) -> Recipe:
    """The networks and the batch size of the demo, on a few of its videos."""
    recipe = find_recipe("demo")
    return replace(recipe, folder=folder, world=replace(recipe.world, videos_train=8, videos_val=1))


def official_recipe(folder: str) -> Recipe:
    """The official near-online networks on 720p frames, with one video of two clips, since the baseline is slow."""
    recipe = find_recipe("vipseg_video_kmax_r50_near_online")
    demo = find_recipe("demo")
    classes = demo.stage_one.segmenter.num_classes
    two = replace(recipe.stage_two, head=replace(recipe.stage_two.head, num_classes=classes),
                  input=replace(recipe.stage_two.input, clips=2, batch_size=1, test_view=True))
    one = replace(recipe.stage_one, segmenter=replace(recipe.stage_one.segmenter, num_classes=classes))
    world = replace(demo.world, videos_train=1, videos_val=1, frames=4, height=720, width=1280)
    return replace(recipe, folder=folder, world=world, dataset=demo.dataset, stage_one=replace(
        one, input=replace(one.input, batch_size=1)), stage_two=two,
        cache=replace(recipe.cache, views=1), cluster=replace(recipe.cluster, workers=1, gpus_per_actor=0))


@dataclass(frozen=True, kw_only=True)
class Size:
    """The recipe of a folder, and the rounds of a comparison."""

    recipe: Callable[[str], Recipe]
    repeats: int = 7


MEASURES = ("jobs/cache_queries.py", *(f"pipeline/query_cache/{name}.py" for name in ("batches", "cache")))
SIZES = {"toy": Size(recipe=toy_recipe), "full": Size(recipe=demo_recipe),
         "official": Size(recipe=official_recipe, repeats=2)}


def prepare(recipe: Recipe, *, splits: tuple[str, ...] = ("train",)) -> Recipe:
    """Write the world, the shards of some splits, an untrained segmenter and its cache."""
    root = str(write_world(recipe.data_root, recipe.world))
    for split in splits:
        make_shards(open_dataset(replace(recipe.dataset, root=root, split=split)), recipe.shards_of(split),
                    recipe.shards, split=split)
    shards = ShardSet(recipe.shards_of("train"))
    save_model(recipe.segmenter_folder, untrained_segmenter(recipe).state_dict(),
               segmenter_card(recipe, shards.classes, shards.fingerprint))
    fill_cache(recipe)
    return recipe


def fill_cache(recipe: Recipe) -> None:
    """Make the cache of a recipe in this process."""
    cache_folder(recipe).mkdir(parents=True, exist_ok=True)
    actor = CacheShard(recipe=recipe)
    shards = ShardSet(recipe.shards_of("train"))
    finish_cache(cache_folder(recipe), cache_source(recipe), [
        part for shard in range(len(shards.manifest["shards"]))
        for part in actor(split="train", shard=shard, part=shard)["parts"]])


def views(recipe: Recipe) -> tuple[Callable[[], None], Callable[[], None]]:
    """An augmented view of every video, with segments of another one pasted, and the test-time view."""
    cache = replace(recipe.cache, views=2, copy_paste=CopyPasteConfig())
    actor = CacheShard(recipe=replace(recipe, cache=cache))
    shards = ShardSet(recipe.shards_of("train"))

    def make(view: int) -> None:
        for video in shards.videos:
            actor.clips(shards, video, view)

    return partial(make, 1), partial(make, 0)


def steps(recipe: Recipe) -> tuple[Callable[[], None], Callable[[], None]]:
    """One optimizer step from the cache, and one with the segmenter in the loop."""
    stage = build_stage(recipe)
    stage.model.train()
    optimizer = build_optimizer(stage.model, stage.optimizer)
    from_cache = stage.batches(0, 1, 0)
    from_frames = segmented_batches(recipe)

    def step(batches: Iterator) -> None:
        losses = stage.losses_of(stage.model, next(batches))
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return lambda: step(from_cache), lambda: step(from_frames)


def segmented_batches(recipe: Recipe) -> Iterator:
    """The same windows, computed from frames each time."""
    actor = CacheShard(recipe=recipe)
    shards = ShardSet(recipe.shards_of("train"))
    config = recipe.stage_two.input
    position = 0
    while True:
        chosen = [shards.videos[(position + i) % len(shards.videos)] for i in range(config.batch_size)]
        position += config.batch_size
        yield collate([actor.clips(shards, video, 0)[:config.clips] for video in chosen], tuple(range(len(chosen))))
