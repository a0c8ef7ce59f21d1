"""What one piece of work costs on this machine: measured in a rehearsal, as the time of one core that works alone.

What the networks cost is measured at the size of the rehearsal, and grows from there to the recipe's own size. Frames
have their own size from the beginning. Where a GPU computes, seconds of the networks are those of the GPU.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from jobs.cache_queries import CacheShard, cache_folder, cache_source, open_cache
from jobs.estimating.amounts import Amounts
from jobs.estimating.rehearsal import Growth, growth_of_clip, rehearsed
from jobs.evaluate import scorecard, true_results
from jobs.kept_predictions import prediction_writer, scores_folder
from jobs.memory import PeakOfWork
from jobs.models import head_card, load_head, open_system, read_card, save_model, segmenter_card
from jobs.recipes.schema import Recipe
from jobs.train_links import build_links
from jobs.train_stage_one import build_stage as build_stage_one
from jobs.train_stage_one import save
from jobs.train_stage_two import build_stage as build_stage_two
from jobs.training.loop import fit
from jobs.training.optimizer import build_optimizer
from jobs.training.trainer import Stage
from pipeline.clips import StoredVideoSource
from pipeline.datasets import open_dataset
from pipeline.datasets.synthetic import write_world
from pipeline.query_cache import finish_cache
from pipeline.shards import ShardSet, make_shards
from pipeline.system import System
from pipeline.training_input import training_batches

IMPORTS = "import mlflow, ray.data, jobs.evaluate, model.segmenters"
AS_MEASURED = Growth(part=1, seconds=1.0, pixels=1.0)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One piece of work in one process: seconds of a core, and the peak memory of the process in GiB."""

    seconds: float
    memory: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Training:
    """A stage: the cost of a sample in a process, and of what a step does besides, which no sample changes."""

    sample: Cost
    update: float                   # seconds of the optimizer in a step
    weights: float                  # bytes of the weights


@dataclass(frozen=True, kw_only=True)
class UnitCosts:
    """The costs at the recipe's own sizes; None where the recipe has no such part."""

    start: Cost                     # a process that imports what a verb and its workers need
    draw: Cost                      # a frame of the synthetic world
    shard: Cost                     # a frame: read, check, store
    decode: Cost                    # a training clip: read, decode, augment, make targets
    step: Training                  # of stage one
    clip: Cost                      # a clip at test time: the segmenter alone
    score: Cost                     # a frame: predict near-online, score, write
    offline: Cost | None = None     # the same offline
    cache: Cost | None = None       # a clip: all of caching it
    head: Training | None = None
    links: Training | None = None
    cached_bytes: float = 0.0       # of a clip
    frame_bytes: float = 0.0        # of a drawn frame in the shards
    result_bytes: float = 0.0       # kept predictions of a frame
    matrix_rate: float = 0.0        # float32 operations a second of one core in a matrix product
    growth: Growth = AS_MEASURED    # from the rehearsal to the recipe's own size


def unit_costs(recipe: Recipe, amounts: Amounts) -> UnitCosts:
    """Measure all costs of a recipe; the docstring of `jobs.estimate` says how long it takes."""
    torch.set_num_threads(1)
    growth, clip = growth_of_clip(recipe, amounts.size)
    with tempfile.TemporaryDirectory() as folder:
        small = rehearsed(recipe, Path(folder) / "run", size=amounts.size, frames=amounts.frames, part=growth.part)
        costs = {**_data(small), **_stage_one(recipe, small, growth)}
        actor = CacheShard(recipe=small) if small.stage_two is not None else None
        if actor is not None:
            costs |= _stage_two(small, actor, growth, clip)
        system = open_system(small, "near_online") if actor is None else actor.system
        costs |= {"score": _score(small, system, growth, clip), "result_bytes": _result_bytes(small)}
        if "offline" in small.modes:
            head, _ = load_head(small.head_folder, segmenter_card=read_card(small.segmenter_folder))
            costs |= {"offline": _score(small, replace(system, head=head), growth, clip)}
    return UnitCosts(**costs, clip=Cost(seconds=clip * growth.seconds), start=_process_start(),
                     matrix_rate=_matrix_rate(), growth=growth)


def spent(work: Callable[[], Any], *, pieces: int, clips: float = 0.0, clip: float = 0.0,
          growth: Growth = AS_MEASURED) -> tuple[Any, Cost]:
    """The result of some work, and the cost of one of its pieces.

    clips: that pass through the network in a piece, which takes `clip` seconds for each and grows.
    """
    peak = PeakOfWork()
    before = clock()
    result = work()
    seconds = (clock() - before) / pieces
    return result, Cost(seconds=seconds + clips * clip * (growth.seconds - 1),
                        memory=peak.before + peak.added() * growth.pixels)


def clock() -> float:
    """Seconds: of the processor, which other programs do not prolong, or where a GPU computes, of the clock."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _process_start() -> Cost:
    """A new process that imports what a verb needs."""
    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = used()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True)
    return Cost(seconds=used() - before)


def _matrix_rate(side: int = 1024) -> float:
    """Float32 operations a second of one core in a matrix product."""
    left, right = torch.rand(2, side, side)
    rates = []
    for _ in range(5):
        before = time.process_time()
        left @ right
        rates.append(2 * side**3 / (time.process_time() - before))
    return max(rates)


def _data(small: Recipe) -> dict[str, Any]:
    """Draw the world and make its shards."""
    world = small.world
    frames = {small.evaluation.split: world.frames * world.videos_val, "train": world.frames * world.videos_train}
    _, draw = spent(partial(write_world, small.data_root, world), pieces=sum(frames.values()))
    for split, count in frames.items():         # the first one also opens libraries
        dataset = open_dataset(replace(small.dataset, root=str(small.data_root), split=split))
        report, shard = spent(partial(make_shards, dataset, small.shards_of(split), small.shards, split=split),
                              pieces=count)
    return {"draw": draw, "shard": shard, "frame_bytes": report.megabytes * 1e6 / frames["train"]}


def _stage_one(recipe: Recipe, small: Recipe, growth: Growth) -> dict[str, Any]:
    """Read clips at their own size, take a few steps, and keep the segmenter."""
    shards = ShardSet(small.shards_of("train"))
    given = replace(small.stage_one.input, augment=recipe.stage_one.input.augment)
    if given.augment.pad_to is not None:
        given = replace(given, copy_paste=None)
    batches = iter(training_batches(shards, given))
    next(batches)
    _, decode = spent(lambda: list(islice(batches, 2)), pieces=2 * given.batch_size)
    clips = max(recipe.stage_one.input.batch_size // recipe.cluster.workers, 1)
    of_all_clips = replace(growth, pixels=growth.pixels * clips / given.batch_size)
    weights, step = trained(partial(build_stage_one, small), of_all_clips, reading=False)
    save(small, weights, segmenter_card(small, shards.classes, shards.fingerprint))
    return {"decode": decode, "step": step}


def _stage_two(small: Recipe, actor: CacheShard, growth: Growth, clip: float) -> dict[str, Any]:
    """Cache the queries of all videos, and take a few steps of head and links."""
    folder = cache_folder(small)
    folder.mkdir(parents=True)
    shards = ShardSet(small.shards_of("train"))
    clips = len(shards.videos) * -(-small.world.frames // actor.system.clip_length)
    rows = [{"split": "train", "shard": shard, "part": shard} for shard in range(len(shards.manifest["shards"]))]
    parts, cache = spent(lambda: [part for row in rows for part in actor(**row)["parts"]], pieces=clips, clips=1,
                         clip=clip, growth=growth)
    finish_cache(folder, cache_source(small), parts)
    costs = {"cache": cache, "cached_bytes": sum(part["bytes"] for part in parts) / clips}
    if small.stage_two.head is not None:
        weights, costs["head"] = trained(partial(build_stage_two, small), AS_MEASURED, reading=True)
        save_model(small.head_folder, weights,
                   head_card(small, read_card(small.segmenter_folder), open_cache(small).fingerprint))
    if small.stage_two.links is not None:
        _, costs["links"] = trained(partial(build_links, small, open_cache(small)), AS_MEASURED,
                                      reading=True)
    return costs


def _score(small: Recipe, system: System, growth: Growth, clip: float) -> Cost:
    """Score a video and write its results; another one opens libraries before."""
    shards = ShardSet(small.shards_of(small.evaluation.split))
    writer = prediction_writer(small, system, shards)

    def score(video: int) -> None:
        stored = shards.videos[video]
        predicted = system.predict(StoredVideoSource(shards, stored))
        scorecard(small, shards.classes).update(predicted, true_results(small, shards, stored))
        if writer is not None:
            writer.write(predicted)

    score(0)
    return spent(partial(score, 1), pieces=small.world.frames, clips=1 / system.clip_length, clip=clip,
                 growth=growth)[1]


def _result_bytes(small: Recipe) -> float:
    """Bytes of the results of a frame."""
    files = [path.stat().st_size for path in scores_folder(small).rglob("*") if path.is_file()]
    return sum(files) / (2 * small.world.frames)


def trained(build: Callable[[], Stage], growth: Growth, *, reading: bool) -> tuple[dict[str, Tensor], Training]:
    """The weights after a few steps of a stage, and their costs. The first step is not counted.

    reading: whether a sample costs the time in which it is read, too.
    """
    stage = build()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = stage.model.to(device).train()
    optimizer = build_optimizer(model, stage.optimizer)
    times: dict[str, list[float]] = {"begin": [], "update": [], "end": []}
    memories: list[tuple[float, float]] = []        # of each step: at its beginning, and added
    peak = PeakOfWork()

    def batches() -> Iterator[Any]:
        source = iter(stage.batches(0, 1, 0))
        while True:
            begin = clock()
            batch = next(source)
            times["begin"].append(begin if reading else clock())
            yield batch.to(device)

    def ended(_: Any) -> None:
        nonlocal peak
        times["end"].append(clock())
        memories.append((peak.before, peak.added()))
        peak = PeakOfWork()

    optimizer.register_step_pre_hook(lambda *_: times["update"].append(clock()))
    fit(model, batches(), partial(stage.losses_of, model), optimizer=optimizer, rates=stage.optimizer,
        config=stage.fit, log=ended, save=lambda _: None)
    steps = list(zip(*times.values()))[1:]
    seconds = median(update - begin for begin, update, _ in steps) / stage.batch_size
    before, added = memories[-1]        # there is a state of the optimizer by then
    gradients = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad) / 2**30
    weights = {name: value.cpu() for name, value in model.state_dict().items()}
    activations = max(added - gradients, 0.0) * growth.pixels
    sample = Cost(seconds=seconds * growth.seconds, memory=before + gradients + activations)
    return weights, Training(sample=sample, update=median(end - update for _, update, end in steps),
                             weights=float(sum(weight.nbytes for weight in weights.values())))
