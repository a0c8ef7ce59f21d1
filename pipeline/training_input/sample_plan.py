"""Which video is drawn when, and by whom: pure functions of (seed, epoch, step) that can be tested without data.

A *draw* is one sample of one video; a run is an endless line of draws, `position` 0, 1, 2, .... A global batch is the
next `global_batch` of them, and rank r takes the r-th equal part. So every rank makes the same number of steps, and
`consumed` draws, a multiple of the global batch, are all that has to be saved to continue in the middle of an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# What a random stream is for; streams of different purposes share no numbers.
PLAN, SHARD, CLIP, PASTE, VIEW, EVIDENCE, STILLS, MIX = range(8)


def random_stream(seed: int, purpose: int, *, epoch: int, index: int = 0) -> np.random.Generator:
    """Random numbers that depend on nothing but the arguments.

    Philox counts upwards in the first word of its counter; epoch and index sit in the last two: streams never meet.
    """
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, index, epoch]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One sample of one video."""

    position: int       # in the whole run: how many samples were consumed before it
    epoch: int
    video: int          # position in the shard set
    repeat: int = 0     # 0 ... samples_per_video-1

    def random(self, seed: int, purpose: int) -> np.random.Generator:
        """The randomness of this sample, whatever rank or worker makes it, and when."""
        return random_stream(seed, purpose, epoch=self.epoch, index=self.video << 20 | self.repeat)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePlan:
    """Order for shards that can be read anywhere: one permutation of all samples per epoch. The world may change."""

    count: int                      # videos
    global_batch: int               # clips per step, all ranks together
    seed: int = 0
    samples_per_video: int = 1      # clips drawn from each video in an epoch

    def __post_init__(self) -> None:
        _check(self)
        _check_fill(self, at_least=self.global_batch, unit="one global batch")

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps, the same on every rank."""
        return self.count * self.samples_per_video // self.global_batch

    @property
    def dropped(self) -> int:
        """Samples of each epoch that fill no global batch; other ones in each epoch."""
        return self.count * self.samples_per_video % self.global_batch

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> list[Draw]:
        """The draws of one rank in one step of the whole run."""
        return _draws(self, step, rank, share_of_rank(self.global_batch, world), first=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """Order for shards that are read front to back: shards permuted per epoch, samples permuted inside a shard.

    The order is cut into equal parts, one for each loader worker of each rank, who reads its part front to back; a
    shard on a cut is opened by both neighbours. So no shard is lost however few there are. Resuming exactly
    needs the same world and workers, as the cuts depend on them.
    """

    videos_per_shard: tuple[int, ...]
    global_batch: int
    seed: int = 0
    samples_per_video: int = 1
    world: int = 1
    workers: int = 1                # loader workers of each rank, at least 1

    def __post_init__(self) -> None:
        _check(self)
        share_of_rank(self.global_batch, self.world)
        _check_fill(self, at_least=self.global_batch * self.workers,
                    unit=f"a global batch for each of {self.workers} loader workers")

    @property
    def count(self) -> int:
        """Videos."""
        return sum(self.videos_per_shard)

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps, the same on every rank; each worker makes every `workers`-th of them."""
        return self.count * self.samples_per_video // (self.global_batch * self.workers) * self.workers

    @property
    def dropped(self) -> int:
        """Samples of each epoch that no worker's equal share holds; other ones in each epoch."""
        return self.count * self.samples_per_video - self.steps_per_epoch * self.global_batch

    def batch(self, step: int, *, rank: int = 0) -> list[Draw]:
        """The draws of one rank in one step of the whole run; worker `step % workers` of the rank makes them."""
        share = self.global_batch // self.world
        block, worker = divmod(step % self.steps_per_epoch, self.workers)
        part = self.steps_per_epoch // self.workers         # batches in the part of each worker
        first = ((rank * self.workers + worker) * part + block) * share
        return _draws(self, step, rank, share, first=first)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPlan:
    """Order for videos and stills in a fixed proportion, wherever they lie. The world may change.

    Each of the two is gone through in an order of its own, again and again; the stills count on after the videos.
    """

    videos: int
    stills: int
    share: float                    # of all samples that are stills
    global_batch: int               # clips per step, all ranks together
    seed: int = 0
    samples_per_video: int = 1      # clips drawn from each video, and still, in an epoch of its own

    def __post_init__(self) -> None:
        _check(self)
        if not 0 < self.share < 1:
            raise ValueError(f"the share of stills is {self.share}; it lies between 0 and 1, and is neither")
        if min(self.videos, self.stills) < 1:
            raise ValueError(f"{self.videos} videos and {self.stills} stills cannot be mixed; see the errors.jsonl of "
                             "the shard set that is empty, and make its shards again")

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> list[Draw]:
        """The draws of one rank in one step of the whole run."""
        share = share_of_rank(self.global_batch, world)
        first = step * self.global_batch
        before = self._stills_before(first)
        after = self._stills_before(first + self.global_batch)
        samples = [(self.videos, STILLS, number) for number in range(before, after)]
        samples += [(0, PLAN, number) for number in range(first - before, first + self.global_batch - after)]
        order = random_stream(self.seed, MIX, epoch=step).permutation(self.global_batch)
        return [self._draw(first + place, *samples[order[place]]) for place in range(rank * share, (rank + 1) * share)]

    def _stills_before(self, position: int) -> int:
        return int(position * self.share)

    def _draw(self, position: int, offset: int, purpose: int, number: int) -> Draw:
        count = (self.stills if offset else self.videos) * self.samples_per_video
        epoch, place = divmod(number, count)
        sample = int(_permutation(self.seed, purpose, epoch, count)[place])
        return Draw(position=position, epoch=epoch, video=offset + sample // self.samples_per_video,
                    repeat=sample % self.samples_per_video)


def share_of_rank(global_batch: int, world: int) -> int:
    """Clips per step of one rank. Raises ValueError where the global batch does not divide by the ranks."""
    if global_batch % world:
        below = global_batch // world * world
        either = f"{below} or {below + world}" if below else f"{world}"
        raise ValueError(f"a global batch of {global_batch} clips cannot be shared by {world} ranks; set the batch "
                         f"size to {either}, or change the number of train workers")
    return global_batch // world


def step_of(consumed: int, global_batch: int) -> int:
    """Steps made when `consumed` samples are. Raises ValueError where the batch size was another one then."""
    if consumed < 0 or consumed % global_batch:
        raise ValueError(f"{consumed} consumed samples are no whole number of global batches of {global_batch}: the "
                         "run to continue had another batch size. Set it back, or start a new run")
    return consumed // global_batch


def _draws(plan: SamplePlan | StreamPlan, step: int, rank: int, share: int, *, first: int | None) -> list[Draw]:
    epoch, local = divmod(step, plan.steps_per_epoch)
    if first is None:
        first = local * plan.global_batch + rank * share
    position = step * plan.global_batch + rank * share
    chosen = _order(plan, epoch)[first:first + share]
    return [Draw(position=position + number, epoch=epoch, video=int(sample) // plan.samples_per_video,
                 repeat=int(sample) % plan.samples_per_video) for number, sample in enumerate(chosen)]


@lru_cache(maxsize=4)       # the steps of an epoch share one order
def _order(plan: SamplePlan | StreamPlan, epoch: int) -> np.ndarray:
    """Samples of an epoch, `video * samples_per_video + repeat`, in the order of reading."""
    repeats = plan.samples_per_video
    if isinstance(plan, SamplePlan):
        return random_stream(plan.seed, PLAN, epoch=epoch).permutation(plan.count * repeats)
    starts = np.cumsum([0, *plan.videos_per_shard]) * repeats
    shards = random_stream(plan.seed, PLAN, epoch=epoch).permutation(len(plan.videos_per_shard))
    return np.concatenate([
        starts[shard] + random_stream(plan.seed, SHARD, epoch=epoch, index=int(shard)).permutation(
            plan.videos_per_shard[shard] * repeats)
        for shard in shards])


@lru_cache(maxsize=8)       # a step may touch two epochs of each set
def _permutation(seed: int, purpose: int, epoch: int, count: int) -> np.ndarray:
    return random_stream(seed, purpose, epoch=epoch).permutation(count)


def _check(plan: SamplePlan | StreamPlan | MixedPlan) -> None:
    for name in ("global_batch", "samples_per_video"):
        if getattr(plan, name) < 1:
            raise ValueError(f"{name} is {getattr(plan, name)}; it must be at least 1")
    if not 0 <= plan.seed < 2**63:
        raise ValueError(f"seed is {plan.seed}; choose one from 0 to 2**63 - 1")


def _check_fill(plan: SamplePlan | StreamPlan, *, at_least: int, unit: str) -> None:
    samples = plan.count * plan.samples_per_video
    if samples >= at_least:
        return
    if plan.count == 0:
        raise ValueError("the shard set holds no video to draw from; see its errors.jsonl and make the shards again")
    raise ValueError(f"{plan.count} videos x {plan.samples_per_video} samples_per_video = {samples} samples do not "
                     f"fill {unit}, {at_least} clips. Set samples_per_video to at least "
                     f"{-(-at_least // plan.count)}, or take a smaller batch size or fewer loader workers")
