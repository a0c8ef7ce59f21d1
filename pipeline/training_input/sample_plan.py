"""The order in which ranks draw videos, as pure functions of (seed, epoch, step) that can be tested without data.

A *draw* is one sample of one video, which may stand for one of its windows; a run is an endless sequence of draws with
`position` 0, 1, 2, .... A global batch consists of the next `global_batch` draws, and rank r takes the r-th of its
parts, which differ by at most one draw. Every rank thus makes the same number of steps. To continue in the middle of an
epoch, only the number of consumed draws, a multiple of the global batch, has to be saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pipeline.training_input.scattered import keys_from, scattered

MOST_SHUFFLED = 2**22       # samples of an epoch; the order of more is computed where it is asked for
# Purposes of random streams; streams of different purposes share no numbers.
PLAN, SHARD, CLIP, PASTE, VIEW, EVIDENCE, STILLS, MIX, REDRAW = range(9)


def random_stream(seed: int, purpose: int, *, epoch: int, index: int = 0, attempt: int = 0) -> np.random.Generator:
    """Random numbers that depend only on the arguments.

    Philox counts upwards in the first word of its counter. Attempt, index and epoch are in the other words, so streams
    never overlap.
    """
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, attempt, index, epoch]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One sample of one video."""

    position: int       # in the whole run: number of samples consumed before
    epoch: int
    video: int          # position in the shard set
    repeat: int = 0     # 0 ... samples_per_video-1
    attempt: int = 0    # number of samples that were refused in its place

    def random(self, seed: int, purpose: int) -> np.random.Generator:
        """Random numbers of this sample, the same on every rank and worker and after a resume."""
        index = self.position if self.attempt else self.video << 20 | self.repeat
        return random_stream(seed, purpose, epoch=self.epoch, index=index, attempt=self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)      # a plan is itself the key of its orders
class SamplePlan:
    """Order for shards with random access: one permutation of all samples per epoch. The number of ranks may change."""

    count: int                      # videos
    global_batch: int               # clips per step, all ranks together
    seed: int = 0
    samples_per_video: int | Sequence[int] | np.ndarray = 1     # clips drawn from each video in an epoch, or from every
                                    # video a number of its own

    def __post_init__(self) -> None:
        _check(self)
        _check_fill(self, at_least=self.global_batch, unit="one global batch")

    @property
    def samples(self) -> int:
        """Number of clips that an epoch has to draw from."""
        return _samples(self)

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps, the same on every rank."""
        return self.samples // self.global_batch

    @property
    def dropped(self) -> int:
        """Number of samples per epoch that are left over from full global batches; each epoch drops other ones."""
        return self.samples % self.global_batch

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> list[Draw]:
        """The draws of one rank in one step of the whole run."""
        return _draws(self, step, rows_of_rank(self.global_batch, rank, world), first=None)

    def redraw(self, draw: Draw) -> Draw:
        """Another sample in place of a refused one, in the same position of the run.

        Every sample of the set is equally likely, as in mmdetection (`_rand_another`) and in kMaX-DeepLab's mapper.
        """
        attempt = draw.attempt + 1
        rng = random_stream(self.seed, REDRAW, epoch=draw.epoch, index=draw.position, attempt=attempt)
        [(video, repeat)] = _locate(self, rng.integers(self.samples, size=1))
        return replace(draw, video=video, repeat=repeat, attempt=attempt)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamPlan:
    """Order for shards that are read front to back: shards are permuted per epoch, and samples within a shard.

    The order is cut into parts, one for each loader worker of each rank. A worker reads its part front to back,
    and two workers open a shard that is cut, so all shards are used, however few there are. An exact resume needs the
    same numbers of ranks and workers, since the cuts depend on them.
    """

    videos_per_shard: tuple[int, ...]
    global_batch: int
    seed: int = 0
    samples_per_video: int | Sequence[int] | np.ndarray = 1     # as of `SamplePlan`
    world: int = 1
    workers: int = 1                # loader workers of each rank, at least 1

    def __post_init__(self) -> None:
        _check(self)
        rows_of_rank(self.global_batch, 0, self.world)
        _check_fill(self, at_least=self.global_batch * self.workers,
                    unit=f"a global batch for each of {self.workers} loader workers")

    @property
    def count(self) -> int:
        """Number of videos."""
        return sum(self.videos_per_shard)

    @property
    def samples(self) -> int:
        """Number of clips that an epoch has to draw from."""
        return _samples(self)

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps, the same on every rank; each worker makes every `workers`-th of them."""
        return self.samples // (self.global_batch * self.workers) * self.workers

    @property
    def dropped(self) -> int:
        """Number of samples per epoch that are left over from the equal parts; each epoch drops other ones."""
        return self.samples - self.steps_per_epoch * self.global_batch

    def batch(self, step: int, *, rank: int = 0) -> list[Draw]:
        """The draws of one rank in one step of the whole run; worker `step % workers` of the rank makes them."""
        rows = rows_of_rank(self.global_batch, rank, self.world)
        block, worker = divmod(step % self.steps_per_epoch, self.workers)
        part = self.steps_per_epoch // self.workers         # batches in the part of each worker
        first = rows.start * self.steps_per_epoch + (worker * part + block) * len(rows)
        return _draws(self, step, rows, first=first)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPlan:
    """Order for videos and stills in a fixed proportion, with random access. The number of ranks may change.

    Each of the two sets is repeated endlessly in its own random order. Stills are numbered after the videos.
    """

    videos: int
    stills: int
    share: float                    # stills as a fraction of all samples
    global_batch: int               # clips per step, all ranks together
    seed: int = 0
    samples_per_video: int = 1      # clips drawn from each video or still in one pass over its set

    def __post_init__(self) -> None:
        _check(self)
        if not 0 < self.share < 1:
            raise ValueError(f"the share of stills is {self.share}; give a value above 0 and below 1")
        if min(self.videos, self.stills) < 1:
            raise ValueError(f"{self.videos} videos and {self.stills} stills cannot be mixed; read the errors.jsonl of "
                             "the empty shard set, and make its shards again")

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> list[Draw]:
        """The draws of one rank in one step of the whole run."""
        first = step * self.global_batch
        before = self._stills_before(first)
        after = self._stills_before(first + self.global_batch)
        samples = [(self.videos, STILLS, index) for index in range(before, after)]
        samples += [(0, PLAN, index) for index in range(first - before, first + self.global_batch - after)]
        order = random_stream(self.seed, MIX, epoch=step).permutation(self.global_batch)
        return [self._draw(first + row, *samples[order[row]]) for row in rows_of_rank(self.global_batch, rank, world)]

    def _stills_before(self, position: int) -> int:
        return int(position * self.share)

    def _draw(self, position: int, offset: int, purpose: int, index: int) -> Draw:
        count = (self.stills if offset else self.videos) * self.samples_per_video
        epoch, rest = divmod(index, count)
        sample = int(_permutation(self.seed, purpose, epoch, count)[rest])
        return Draw(position=position, epoch=epoch, video=offset + sample // self.samples_per_video,
                    repeat=sample % self.samples_per_video)


def rows_of_rank(global_batch: int, rank: int, world: int) -> range:
    """The part of a global batch that one rank takes; the parts differ by at most one row.

    Raises ValueError if there are more ranks than clips, since each rank needs one.
    """
    if world > global_batch:
        raise ValueError(f"a global batch of {global_batch} clips cannot be shared by {world} ranks; set the batch "
                         f"size to at least {world}, or lower the number of train workers")
    return range(global_batch * rank // world, global_batch * (rank + 1) // world)


def enough_samples(per_video: int | Sequence[int] | np.ndarray, *, videos: int, clips: int) -> int | np.ndarray:
    """`samples_per_video` with which an epoch has at least `clips` samples: as given, or for a small set a multiple."""
    samples = videos * per_video if isinstance(per_video, int) else int(np.sum(per_video))
    times = max(-(-clips // max(samples, 1)), 1)
    return times * per_video if isinstance(per_video, int) else times * np.asarray(per_video)


def step_of(consumed: int, global_batch: int) -> int:
    """Number of steps after `consumed` samples. Raises ValueError if they were not consumed at this batch size."""
    if consumed < 0 or consumed % global_batch:
        raise ValueError(f"{consumed} consumed samples are not a multiple of the global batch of {global_batch}, so "
                         "the run to continue had another batch size. Set that batch size, or start a new run")
    return consumed // global_batch


def _draws(plan: SamplePlan | StreamPlan, step: int, rows: range, *, first: int | None) -> list[Draw]:
    """The draws of some rows of a batch. first: where they begin in the order; None: where the batch has them."""
    epoch, local = divmod(step, plan.steps_per_epoch)
    if first is None:
        first = local * plan.global_batch + rows.start
    position = step * plan.global_batch + rows.start
    chosen = _chosen(plan, epoch, range(first, first + len(rows)))
    return [Draw(position=position + index, epoch=epoch, video=video, repeat=repeat)
            for index, (video, repeat) in enumerate(_locate(plan, chosen))]


def _chosen(plan: SamplePlan | StreamPlan, epoch: int, places: range) -> np.ndarray:
    """The samples at some places in the order of an epoch."""
    if isinstance(plan, SamplePlan) and plan.samples > MOST_SHUFFLED:       # shuffling 23 million takes 2 s
        keys = keys_from(random_stream(plan.seed, PLAN, epoch=epoch))
        return scattered(np.arange(places.start, places.stop), count=plan.samples, keys=keys)
    return _order(plan, epoch)[places.start:places.stop]


@lru_cache(maxsize=2)       # all steps of an epoch share one order
def _order(plan: SamplePlan | StreamPlan, epoch: int) -> np.ndarray:
    """Samples of an epoch in the order of reading. The samples of a video have consecutive numbers."""
    if isinstance(plan, SamplePlan):
        return random_stream(plan.seed, PLAN, epoch=epoch).permutation(plan.samples)
    starts = _starts(plan)[np.cumsum([0, *plan.videos_per_shard])]
    shards = random_stream(plan.seed, PLAN, epoch=epoch).permutation(len(plan.videos_per_shard))
    return np.concatenate([
        starts[shard] + random_stream(plan.seed, SHARD, epoch=epoch, index=int(shard)).permutation(
            starts[shard + 1] - starts[shard])
        for shard in shards])


@lru_cache(maxsize=2)
def _starts(plan: SamplePlan | StreamPlan) -> np.ndarray:
    """The number of the first sample of each video, and at the end the number of all samples."""
    return np.append(0, np.cumsum(np.broadcast_to(plan.samples_per_video, plan.count), dtype=np.int64))


def _locate(plan: SamplePlan | StreamPlan, samples: np.ndarray) -> list[tuple[int, int]]:
    """The video of each sample, and which sample of that video it is."""
    if isinstance(plan.samples_per_video, int):     # an epoch may have too many samples for a list of them
        videos, places = np.divmod(samples, plan.samples_per_video)
    else:
        starts = _starts(plan)
        videos = np.searchsorted(starts, samples, side="right") - 1
        places = samples - starts[videos]
    return list(zip(videos.tolist(), places.tolist()))


def _samples(plan: SamplePlan | StreamPlan) -> int:
    repeats = plan.samples_per_video
    return plan.count * repeats if isinstance(repeats, int) else int(np.sum(repeats))


@lru_cache(maxsize=8)       # a step may reach into two epochs of each set
def _permutation(seed: int, purpose: int, epoch: int, count: int) -> np.ndarray:
    return random_stream(seed, purpose, epoch=epoch).permutation(count)


def _check(plan: SamplePlan | StreamPlan | MixedPlan) -> None:
    if plan.global_batch < 1:
        raise ValueError(f"global_batch is {plan.global_batch}; it must be at least 1")
    if isinstance(plan.samples_per_video, int) and plan.samples_per_video < 1:
        raise ValueError(f"samples_per_video is {plan.samples_per_video}; it must be at least 1")
    if not 0 <= plan.seed < 2**63:
        raise ValueError(f"seed is {plan.seed}; choose one from 0 to 2**63 - 1")


def _check_fill(plan: SamplePlan | StreamPlan, *, at_least: int, unit: str) -> None:
    samples = _samples(plan)
    if samples >= at_least:
        return
    if plan.count == 0:
        raise ValueError("the shard set holds no video to draw from; read its errors.jsonl and make the shards again")
    if not isinstance(plan.samples_per_video, int):
        raise ValueError(f"{plan.count} videos give {samples} clips an epoch, which do not fill {unit}, {at_least} "
                         "clips. Choose a smaller batch size, fewer loader workers, or a greater samples_per_video")
    raise ValueError(f"{plan.count} videos x {plan.samples_per_video} samples_per_video = {samples} samples do not "
                     f"fill {unit}, {at_least} clips. Set samples_per_video to at least "
                     f"{-(-at_least // plan.count)}, or choose a smaller batch size or fewer loader workers")
