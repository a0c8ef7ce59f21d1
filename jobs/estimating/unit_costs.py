"""What one piece of work costs on this machine: measured in a rehearsal, as the time of one core that works alone.

What the networks cost is measured at the size of the rehearsal, and grows from there to the recipe's own size. Frames
have their own size from the beginning. Where a GPU computes, seconds of the networks are those of the GPU.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from jobs.cache_queries import CacheShard, cache_folder, cache_source, open_cache
from jobs.estimating.amounts import Amounts
from jobs.estimating.passes import passes_of_frame
from jobs.estimating.rehearsal import Growth, growth_of_clip, rehearsed
from jobs.estimating.uniform_weights import UniformWeights
from jobs.evaluate import scorecard, true_results
from jobs.kept_predictions import prediction_writer, scores_folder
from jobs.memory import PeakOfWork
from jobs.models import known_classes, segmenter_card
from jobs.recipes.schema import Recipe
from jobs.train_links import links_on
from jobs.train_stage_one import build_model, save
from jobs.train_stage_one import stage_on as stage_one_on
from jobs.train_stage_two import stage_on as stage_two_on
from jobs.training.loop import fit
from jobs.training.optimizer import build_optimizer
from jobs.training.trainer import Stage
from model.folding import fold_norms
from pipeline.clips import StoredVideoSource
from pipeline.datasets import open_dataset
from pipeline.datasets.synthetic import write_world
from pipeline.query_cache import finish_cache
from pipeline.shards import ShardSet, make_shards
from pipeline.system import System
from pipeline.training_input import training_batches

STARTING = "import time, mlflow, ray.data, jobs.evaluate, model.segmenters; print(time.process_time())"
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
    clip: Cost                      # a clip of as many frames as in training: the segmenter alone, at test time
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
    with tempfile.TemporaryDirectory() as folder, _starting_process() as process:
        scaled = partial(rehearsed, recipe, Path(folder) / "run", size=amounts.size, frames=amounts.frames)
        with UniformWeights():
            model = build_model(scaled(part=1))     # once, since large networks take a second even so
        segmenter = model if recipe.stage_one.joint is None else model.segmenter
        growth, clip = growth_of_clip(recipe, amounts.size, segmenter)
        small = scaled(part=growth.part)
        costs = {**_data(small), **_stage_one(recipe, small, model, growth)}
        system = _system(small, segmenter)
        head = None if recipe.stage_one.joint is None else model.head
        network = _Network(growth=growth, frame=clip / recipe.stage_one.segmenter_frames)
        if small.stage_two is not None:
            of_stage_two, head = _stage_two(small, system, segmenter, network)
            costs |= of_stage_two
        score = partial(_score, small, network=network, frames=amounts.frames)
        costs |= {"score": score(system), "result_bytes": _result_bytes(small, growth)}
        if "offline" in small.modes:
            costs |= {"offline": score(replace(system, head=head.eval().requires_grad_(False)))}
        start = _process_start(process)
    return UnitCosts(**costs, clip=Cost(seconds=clip * growth.seconds), start=start, matrix_rate=_matrix_rate(),
                     growth=growth)


@dataclass(frozen=True, kw_only=True)
class _Network:
    """What the segmenter costs in the rehearsal, and beyond it."""

    growth: Growth
    frame: float        # seconds of a frame in the rehearsal

    def beyond(self, cost: Cost, *, passed: float, passes: float) -> Cost:
        """The cost of a piece at the recipe's own size.

        passed: frames that passed through the segmenter in a piece of the rehearsal; passes: in one of the recipe.
        """
        return replace(cost, seconds=cost.seconds + (passes * self.growth.seconds - passed) * self.frame)


def spent(work: Callable[[], Any], *, pieces: int, growth: Growth = AS_MEASURED) -> tuple[Any, Cost]:
    """The result of some work, and the cost of one of its pieces; its memory grows with the pixels."""
    peak = PeakOfWork()
    before = clock()
    result = work()
    seconds = (clock() - before) / pieces
    return result, Cost(seconds=seconds, memory=peak.before + peak.added() * growth.pixels)


def clock() -> float:
    """Seconds: of the processor, which other programs do not prolong, or where a GPU computes, of the clock."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _starting_process() -> subprocess.Popen[str]:
    """A new process that imports what a verb needs, beside the other measurements."""
    return subprocess.Popen([sys.executable, "-c", STARTING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _process_start(process: subprocess.Popen[str]) -> Cost:
    """The seconds of the processor that the process took."""
    said, errors = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, stderr=errors)
    return Cost(seconds=float(said.split()[-1]))


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


def _stage_one(recipe: Recipe, small: Recipe, model: nn.Module, growth: Growth) -> dict[str, Any]:
    """Read clips at their own size, train the model for a few steps, and keep the segmenter."""
    shards = ShardSet(small.shards_of("train"))
    given = replace(small.stage_one.input, augment=recipe.stage_one.input.augment)
    if given.augment.pad_to is not None:
        given = replace(given, copy_paste=None)
    batches = iter(training_batches(shards, given))
    next(batches)
    _, decode = spent(lambda: list(islice(batches, 2)), pieces=2 * given.batch_size)
    clips = max(recipe.stage_one.input.batch_size // recipe.cluster.workers, 1)
    of_all_clips = replace(growth, pixels=growth.pixels * clips / given.batch_size)
    stage = stage_one_on(small, model)
    if stage.fit.steps == 1:
        _warm_up(stage)
    step = trained(stage, of_all_clips, reading=False)
    save(small, {}, segmenter_card(small, shards.classes, shards.fingerprint))      # only the card is read
    return {"decode": decode, "step": step}


def _warm_up(stage: Stage) -> None:
    """A pass without gradients, in which libraries open: before a step that is alone, at a third of its price."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = stage.model.to(device).train()
    with torch.no_grad():
        stage.losses_of(model, next(iter(stage.batches(0, 1, 0))).to(device))


def _system(small: Recipe, segmenter: nn.Module) -> System:
    """What `open_system` makes of a trained segmenter."""
    folded = fold_norms(deepcopy(segmenter).eval().requires_grad_(False))
    stage = small.stage_one
    return System(segmenter=folded, head=None, classes=known_classes(small.segmenter_folder),
                  inference=small.inference, clip_frames=stage.segmenter_frames, size=stage.input.augment.size,
                  made_by={"recipe": small.name, "mode": "near_online"})


def _stage_two(small: Recipe, system: System, segmenter: nn.Module, network: _Network
               ) -> tuple[dict[str, Any], nn.Module | None]:
    """Cache the queries of all videos, and take a few steps of head and links; returns the costs and the head.

    segmenter: as it was trained, where that of the system has no norms.
    """
    actor = CacheShard(recipe=small, system=system)
    folder = cache_folder(small)
    folder.mkdir(parents=True)
    shards = ShardSet(small.shards_of("train"))
    clips = len(shards.videos) * -(-small.world.frames // system.clip_length)
    rows = [{"split": "train", "shard": shard, "part": shard} for shard in range(len(shards.manifest["shards"]))]
    parts, cache = spent(lambda: [part for row in rows for part in actor(**row)["parts"]], pieces=clips,
                         growth=network.growth)
    finish_cache(folder, cache_source(small), parts)
    costs = {"cache": network.beyond(cache, passed=system.clip_length, passes=system.clip_length),
             "cached_bytes": sum(part["bytes"] for part in parts) / clips}
    filled = open_cache(small)
    segmenter.eval()
    head = None if small.stage_two.head is None else small.stage_two.head.build()
    if head is not None:
        costs["head"] = trained(stage_two_on(small, head, filled, segmenter), AS_MEASURED, reading=True)
    if small.stage_two.links is not None:
        costs["links"] = trained(links_on(small, filled, segmenter), AS_MEASURED, reading=True)
    return costs, head


def _score(small: Recipe, system: System, *, network: _Network, frames: int) -> Cost:
    """Score a video and write its results. frames: of the recipe's own videos."""
    shards = ShardSet(small.shards_of(small.evaluation.split))
    writer = prediction_writer(small, system, shards)

    def score(video: int) -> None:
        stored = shards.videos[video]
        predicted = system.predict(StoredVideoSource(shards, stored))
        scorecard(small, shards.classes).update(predicted, true_results(small, shards, stored))
        if writer is not None:
            writer.write(predicted)

    *before, counted = _scored(network.growth)
    for video in before:
        score(video)
    _, cost = spent(partial(score, counted), pieces=small.world.frames, growth=network.growth)
    passed, passes = (passes_of_frame(small, length, offline=system.head is not None)
                      for length in (small.world.frames, frames))
    return network.beyond(cost, passed=passed, passes=passes)


def _scored(growth: Growth) -> range:
    """The videos that are scored; the last one is counted. Where that takes no seconds, one before opens libraries."""
    return range(2 if growth.part == 1 else 1)


def _result_bytes(small: Recipe, growth: Growth) -> float:
    """Bytes of the results of a frame."""
    files = [path.stat().st_size for path in scores_folder(small).rglob("*") if path.is_file()]
    return sum(files) / (len(_scored(growth)) * small.world.frames)


def trained(stage: Stage, growth: Growth, *, reading: bool) -> Training:
    """The costs of a few steps of a stage, whose model is trained. The first step is not counted, unless it is alone.

    reading: whether a sample costs the time in which it is read, too.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = stage.model.to(device).train()
    optimizer = build_optimizer(model, stage.optimizer)
    times: dict[str, list[float]] = {"begin": [], "update": [], "end": []}
    memories: list[tuple[float, float]] = []        # of each step: at its beginning, and added until the update
    peak = PeakOfWork()

    def batches() -> Iterator[Any]:
        source = iter(stage.batches(0, 1, 0))
        while True:
            begin = clock()
            batch = next(source)
            times["begin"].append(begin if reading else clock())
            yield batch.to(device)

    def updating(*_: Any) -> None:
        times["update"].append(clock())
        memories.append((peak.before, peak.added()))

    def ended(_: Any) -> None:
        nonlocal peak
        times["end"].append(clock())
        peak = PeakOfWork()

    optimizer.register_step_pre_hook(updating)
    fit(model, batches(), partial(stage.losses_of, model), optimizer=optimizer, rates=stage.optimizer,
        config=stage.fit, log=ended, save=lambda _: None)
    steps = list(zip(*times.values()))
    steps = steps[1:] or steps
    seconds = median(update - begin for begin, update, _ in steps) / stage.batch_size
    before, added = memories[-1]
    gradients = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad) / 2**30
    if len(memories) == 1:
        before += 2 * gradients         # the state of the optimizer, which a second step would find
    activations = max(added - gradients, 0.0) * growth.pixels
    sample = Cost(seconds=seconds * growth.seconds, memory=before + gradients + activations)
    return Training(sample=sample, update=median(end - update for _, update, end in steps),
                    weights=float(sum(weight.nbytes for weight in model.state_dict().values())))
