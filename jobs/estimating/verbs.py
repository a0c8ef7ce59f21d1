"""The work of every verb of a recipe, from amounts and unit costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from jobs.estimating.amounts import Amounts
from jobs.estimating.passes import clip_length, passes_of_frame
from jobs.estimating.schedule import Cluster, Steps, Tasks, Work
from jobs.estimating.unit_costs import Cost, UnitCosts
from jobs.recipes.schema import Recipe
from jobs.training.loop import FitConfig

STATES = 3          # copies of the weights in a checkpoint: themselves and the two averages of the optimizer


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A verb: its work, the bytes that it leaves, and the memory of one of its processes in GiB."""

    verb: str
    work: Work
    written: float
    memory: float
    on_gpu: bool = True     # where there are GPUs


def planned(recipe: Recipe, amounts: Amounts, costs: UnitCosts, cluster: Cluster) -> Iterator[Planned]:
    """Every verb of a recipe in its order. cluster: says what computes the networks."""
    faster = 1.0
    if cluster.gpus and not torch.cuda.is_available():      # measured on a core of this machine
        faster = costs.matrix_rate / cluster.gpu_rate
    alone = costs.start.seconds

    def with_network(cost: Cost, frames: float) -> float:
        """Seconds of a piece of inference in which so many frames pass through the segmenter."""
        network = costs.clip.seconds / recipe.stage_one.segmenter_frames * frames
        return max(cost.seconds - network, 0.0) + network * faster

    yield _sharding(recipe, amounts, costs, alone)
    yield _stage_one(recipe, amounts, costs, alone, faster)
    if recipe.stage_two is not None:
        yield _caching(recipe, amounts, costs, alone, seconds=with_network(costs.cache, clip_length(recipe)))
        yield _stage_two(recipe, costs, alone, faster)
    for mode, cost in (("near_online", costs.score), ("offline", costs.offline)):
        if mode in recipe.modes:
            passes = passes_of_frame(recipe, amounts.frames, offline=mode == "offline")
            seconds = with_network(cost, passes)
            yield _scoring(recipe, amounts, costs, alone, mode=mode, seconds=seconds, memory=cost.memory)


def shards_of(recipe: Recipe, amounts: Amounts, split: str) -> int:
    """The number of shards of a split."""
    size = amounts.videos[split] * amounts.frames * amounts.bytes_of_frame
    wanted = max(recipe.shards.min_shards, -(-int(size) // int(recipe.shards.shard_megabytes * 1e6)))
    return max(min(wanted, amounts.videos[split]), 1)


def _sharding(recipe: Recipe, amounts: Amounts, costs: UnitCosts, alone: float) -> Planned:
    shards = sum(shards_of(recipe, amounts, split) for split in amounts.videos)
    frames = sum(amounts.videos.values()) * amounts.frames
    total = frames * amounts.bytes_of_frame
    drawn = frames * costs.draw.seconds if recipe.world is not None else 0.0
    work = Tasks(tasks=shards, seconds=frames / shards * costs.shard.seconds, read=total / shards,
                 written=total / shards, alone=alone + drawn, networks=False, pieces="shards")
    return Planned(verb="make_shards", work=work, written=total, memory=costs.shard.memory, on_gpu=False)


def _stage_one(recipe: Recipe, amounts: Amounts, costs: UnitCosts, alone: float, faster: float) -> Planned:
    stage = recipe.stage_one
    clips = 1 if stage.input.copy_paste is None else 2          # of a sample: with the donor
    steps = stage.fit.steps if stage.train else 0               # 0: the weights of its start are kept
    work = Steps(steps=steps * stage.fit.accumulate, batch=stage.input.batch_size,
                 seconds=costs.step.sample.seconds * faster, update=costs.step.update * faster,
                 decode=costs.decode.seconds, loaders=stage.input.workers,
                 read=clips * stage.input.clip_frames * amounts.bytes_of_frame, weights=costs.step.weights,
                 records=steps // stage.fit.log_every, alone=alone)
    written = _kept(stage.fit, costs.step.weights) if stage.train else costs.step.weights
    return Planned(verb="train_stage_one", work=work, written=written, memory=costs.step.sample.memory)


def _caching(recipe: Recipe, amounts: Amounts, costs: UnitCosts, alone: float, *, seconds: float) -> Planned:
    splits = recipe.cache.splits
    shards = sum(shards_of(recipe, amounts, split) for split in splits)
    videos = sum(amounts.videos[split] for split in splits)
    clips = videos * -(-amounts.frames // clip_length(recipe)) * recipe.cache.views
    read = videos * amounts.frames * amounts.bytes_of_frame * recipe.cache.views
    work = Tasks(tasks=shards, seconds=clips / shards * seconds, read=read / shards,
                 written=clips * costs.cached_bytes / shards, alone=alone, pieces="shards")
    return Planned(verb="cache_queries", work=work, written=clips * costs.cached_bytes, memory=costs.cache.memory)


def _stage_two(recipe: Recipe, costs: UnitCosts, alone: float, faster: float) -> Planned:
    stage = recipe.stage_two
    links = 0.0
    if stage.links is not None:         # they train in the verb's own process
        links = stage.links.fit.steps * (stage.links.input.batch_size * costs.links.sample.seconds + costs.links.update)
    if stage.head is None:
        work = Tasks(tasks=1, seconds=links, alone=alone, pieces="trainings of links")
        return Planned(verb="train_stage_two", work=work, written=0.0, memory=costs.links.sample.memory)
    read = stage.input.clips * costs.cached_bytes
    work = Steps(steps=stage.fit.steps * stage.fit.accumulate, batch=stage.input.batch_size,
                 seconds=costs.head.sample.seconds * faster, update=costs.head.update * faster, decode=0.0, loaders=0,
                 read=read, weights=costs.head.weights,
                 records=stage.fit.steps // stage.fit.log_every, alone=alone + links)
    return Planned(verb="train_stage_two", work=work, written=_kept(stage.fit, costs.head.weights),
                   memory=costs.head.sample.memory)


def _scoring(recipe: Recipe, amounts: Amounts, costs: UnitCosts, alone: float, *, mode: str, seconds: float,
             memory: float) -> Planned:
    videos = amounts.videos[recipe.evaluation.split]
    kept = amounts.frames * costs.result_bytes
    work = Tasks(tasks=videos, seconds=amounts.frames * seconds, read=amounts.frames * amounts.bytes_of_frame,
                 written=kept, alone=alone, pieces="videos")
    return Planned(verb=f"evaluate, {mode.replace('_', '-')}", work=work, written=videos * kept, memory=memory)


def _kept(fit: FitConfig, weights: float) -> float:
    """Bytes of the checkpoints that a training leaves, and of the finished model."""
    return (fit.keep_checkpoints * STATES + 1) * weights
