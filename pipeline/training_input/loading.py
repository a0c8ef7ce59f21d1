"""Shards -> training batches, inside one train worker.

There are two ways to read: by index (any clip with one `pread`, the default), or streaming front to back through
`webdataset`. Both make the same clips. The content of a clip depends only on (seed, epoch, sample), and in place of a
refused clip on (seed, epoch, position, attempt). `sample_plan.py` beside this file decides the order, and where a
resumed run continues. Loader processes are those of `torch.utils.data.DataLoader`, forked from the training process;
the memory they share with it holds workers x prefetch + 1 batches.

Decoding allocates and frees megabytes per frame. Start the training process with MALLOC_MMAP_THRESHOLD_=268435456 and
MALLOC_TRIM_THRESHOLD_=536870912 in its environment; otherwise page faults cost more than a slower decoder would.
"""

from __future__ import annotations

import logging
import os
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, count, groupby, islice

import numpy as np
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from model.contracts import ClipBatch
from pipeline import store
from pipeline.clips import neighbours
from pipeline.errors import BadInput
from pipeline.shards import ShardSet, StoredVideo
from pipeline.shards.format import clip_key
from pipeline.shards.streaming import stream_members
from pipeline.training_input.batch_slots import BatchSlots, PackedBatch
from pipeline.training_input.sample_plan import (
    Draw,
    MixedPlan,
    SamplePlan,
    StreamPlan,
    enough_samples,
    rows_of_rank,
    step_of,
)
from pipeline.training_input.training_clips import (
    ClipPlan,
    Fetch,
    InputConfig,
    clips_per_epoch,
    is_refused,
    plan_clip,
)

log = logging.getLogger(__name__)

_ATTEMPTS = 100                                         # draws in one place of a run
_REPORTED = {10**power for power in range(1, 10)}       # batches after which refused clips are reported


@dataclass(frozen=True)
class Stills:
    """A shard set of stills that is used together with the videos, and its share of all clips."""

    shards: ShardSet
    share: float


def training_plan(shards: ShardSet, config: InputConfig, *, world: int = 1,
                stills: Stills | None = None) -> SamplePlan | StreamPlan | MixedPlan:
    """The order of reading: the draws of each step. A set that does not fill a batch is drawn from more often.

    Raises ValueError if batch size, ranks, workers, videos and stills do not fit together.
    """
    shards = shards.with_labels()
    sizes = {"global_batch": config.batch_size, "seed": config.seed}
    rows_of_rank(config.batch_size, 0, world)
    if stills is not None:
        _refuse_unfit_stills(shards, stills.shards, config)
        images = stills.shards.with_labels().videos
        return MixedPlan(videos=len(shards.videos), stills=len(images), share=stills.share,
                         samples_per_video=config.samples_per_video, **sizes)
    workers = max(config.workers, 1) if config.streaming else 1
    sizes["samples_per_video"] = enough_samples(_clips_per_video(shards, config), videos=len(shards.videos),
                                                clips=config.batch_size * workers)
    if not config.streaming:
        return SamplePlan(count=len(shards.videos), **sizes)
    return StreamPlan(videos_per_shard=tuple(map(len, _videos_of_shards(shards))), world=world, workers=workers,
                      **sizes)


def training_batches(shards: ShardSet, config: InputConfig, *, rank: int = 0, world: int = 1, consumed: int = 0,
                     stills: Stills | None = None) -> Iterator[ClipBatch]:
    """Batches of one rank's part of `batch_size` clips, without end; a step consumes `batch_size` samples.

    stills: need the same classes and are read by index; `config.pseudo_video` turns them into clips.
    consumed: samples that all ranks have consumed before; the run continues with the next one, even within an epoch.
    Videos without labels are left out. A clip holds at least one frame with a label; its other frames are void.
    Batches are in pinned memory if CUDA is available. Closing the iterator ends its loader processes.
    Raises ValueError at once for impossible settings, and BadInput, which names the video, in place of a faulty batch.
    """
    plan = training_plan(shards, config, world=world, stills=stills)
    step = step_of(consumed, config.batch_size)
    shards = shards.with_labels()
    sets = [shards, stills.shards.with_labels()] if stills else [shards]
    sizes = set().union(*(shard_set.videos.sizes for shard_set in sets))
    slots = BatchSlots(config, share=len(rows_of_rank(config.batch_size, rank, world)), sources=sizes)
    if isinstance(plan, StreamPlan):
        dataset = StreamedClips(shards, slots, plan, rank=rank, step=step)
        order = None
    else:
        dataset = IndexedClips(sets, slots, redraw=None if stills else plan.redraw)
        order = _Steps(plan, rank=rank, world=world, step=step)
    loader = DataLoader(dataset, sampler=order, batch_size=None, num_workers=config.workers, collate_fn=_as_it_is,
                        prefetch_factor=config.prefetch if config.workers else None,
                        multiprocessing_context="fork" if config.workers else None)
    return (slots.take(packed) for packed in _reported(loader))


def _reported(batches: Iterable[PackedBatch | BadInput]) -> Iterator[PackedBatch | BadInput]:
    """The same batches; after 10, 100, 1000, ... of them, the log tells how many clips were refused."""
    refused = clips = 0
    for number, packed in enumerate(batches, 1):
        if isinstance(packed, PackedBatch):
            refused += packed.refused
            clips += len(packed.samples)
            if refused and number in _REPORTED:
                log.warning("%d clips were refused and drawn again for %d clips of training (stage_one.input.refuse)",
                            refused, clips)
        yield packed


class IndexedClips(Dataset):
    """Map-style data set: a step and its draws -> the batch, in its slot.

    sets: their videos are numbered through, set after set; the first set has the class table and the donors of
    copy-paste.
    """

    def __init__(self, sets: Sequence[ShardSet], slots: BatchSlots, *,
                 redraw: Callable[[Draw], Draw] | None = None) -> None:
        """redraw: gives another draw in place of one whose clip is refused; needed if `InputConfig.refuse` is set."""
        self.sets = sets
        self.slots = slots
        self.redraw = redraw
        self.videos = JoinedVideos(sets)
        self.ends = self.videos.ends
        self.is_remote = any(shards.is_remote for shards in sets)

    def __getitem__(self, at: tuple[int, list[Draw]]) -> PackedBatch | BadInput:
        step, draws = at
        try:
            plans = [self.accepted(draw) for draw in draws]
        except BadInput as error:
            return error
        with self._fetches(plans) as fetches:
            return self.slots.put(step, plans, fetches, self.sets[0].classes)

    def accepted(self, draw: Draw) -> ClipPlan:
        """The clip of a draw, or the first one after it that is not refused."""
        config = self.slots.config
        for _ in range(_ATTEMPTS):
            plan = plan_clip(draw, self.videos, config, donors=range(self.ends[0]))
            if not is_refused(plan, self._fetch(draw), self.sets[0].classes, config):
                return plan
            draw = self.redraw(draw)
        raise BadInput("empty-clips", f"{_ATTEMPTS} clips that were drawn one after another hold too little to train "
                       f"on ({config.refuse}); the last was of this video.", video=plan.clip.video.video_id,
                       cure="Check that the videos have labels, or set stage_one.input.refuse=null.")

    @contextmanager
    def _fetches(self, plans: Sequence[ClipPlan]) -> Iterator[list[Fetch]]:
        """How the frames of each clip are read. From a store, several threads read all clips of the batch at once."""
        fetches = [self._fetch(plan.draw) for plan in plans]
        if not self.is_remote:
            yield fetches
            return
        with ThreadPoolExecutor(store.READERS) as pool:
            yield [_ahead(pool, fetch, plan) for plan, fetch in zip(plans, fetches)]

    def _fetch(self, draw: Draw) -> Fetch:
        return partial(read_frames, self.sets[bisect_right(self.ends, draw.video)])


def _ahead(pool: ThreadPoolExecutor, fetch: Fetch, plan: ClipPlan) -> Fetch:
    """A `Fetch` whose frames of this clip, and of its donor, are on their way."""
    parts = [part for part in (plan.clip, plan.donor) if part]
    coming = {(part.video.video_id, tuple(part.frames)): pool.submit(fetch, part.video, part.frames) for part in parts}

    def fetched(video: StoredVideo, frames: tuple[int, ...]) -> list[tuple[bytes, bytes | None]]:
        key = (video.video_id, tuple(frames))
        return coming[key].result() if key in coming else fetch(video, frames)

    return fetched


class JoinedVideos(Sequence[StoredVideo]):
    """The videos of several sets, one set after another."""

    def __init__(self, sets: Sequence[ShardSet]) -> None:
        self.sets = sets
        self.ends = list(accumulate(len(shards.videos) for shards in sets))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> StoredVideo:
        part = bisect_right(self.ends, index)
        return self.sets[part].videos[index - (self.ends[part - 1] if part else 0)]


def read_frames(shards: ShardSet, video: StoredVideo, frames: tuple[int, ...]) -> list[tuple[bytes, bytes | None]]:
    """A `Fetch` that reads by index, each run of consecutive frames with one `pread`."""
    stored = {}
    for start, stop in neighbours(frames):
        stored |= zip(range(start, stop), shards.read(video, start, stop))
    return [stored[frame] for frame in frames]


class StreamedClips(IterableDataset):
    """Streaming data set: the batches of one rank, in their slots. Each loader worker reads its own part of the shards.

    A worker reads a shard once per epoch and keeps only the encoded frames that its clips need. Donors of copy-paste
    come from the same shard; reading by index takes them from the whole set.
    """

    def __init__(self, shards: ShardSet, slots: BatchSlots, plan: StreamPlan, *, rank: int, step: int) -> None:
        self.shards = shards
        self.slots = slots
        self.plan = plan
        self.rank = rank
        self.step = step
        self.videos_of = _videos_of_shards(shards)

    def __iter__(self) -> Iterator[PackedBatch | BadInput]:
        worker = get_worker_info()
        first = self.step + (worker.id if worker else 0)
        draws = chain.from_iterable(self.plan.batch(step, rank=self.rank) for step in count(first, self.plan.workers))
        clips = self._clips(draws)
        for step in count(first, self.plan.workers):
            try:
                plans, fetches = zip(*islice(clips, self.slots.share))
            except BadInput as error:
                yield error
                return
            yield self.slots.put(step, plans, fetches, self.shards.classes)

    def _clips(self, draws: Iterable[Draw]) -> Iterator[tuple[ClipPlan, Fetch]]:
        videos = self.shards.videos
        config = self.slots.config
        for (_, shard), group in groupby(draws, key=lambda draw: (draw.epoch, int(videos.shards[draw.video]))):
            plans = [plan_clip(draw, videos, config, donors=self.videos_of[shard]) for draw in group]
            read = _read_shard(self.shards, shard, plans, config)
            yield from ((plan, read) for plan in plans)


def _read_shard(shards: ShardSet, shard: int, plans: list[ClipPlan], config: InputConfig) -> Fetch:
    """Stream one tar and keep the members that the plans need. Returns a function that looks them up."""
    parts = [part for plan in plans for part in (plan.clip, plan.donor) if part]
    lengths = {name: length for part in parts for frame in part.frames
               for name, length in _members(shards, part.video, frame).items()}
    name = shards.manifest["shards"][shard]["name"]
    members = stream_members(os.path.expanduser(config.stream_from) or str(shards.folder), name, lengths)

    def fetch(video: StoredVideo, frames: tuple[int, ...]) -> list[tuple[bytes, bytes | None]]:
        stored = [[members[name] for name in _members(shards, video, frame)] for frame in frames]
        for frame, parts in zip(frames, stored):
            if tuple(map(zlib.crc32, parts)) != video.frames[frame].crc32:
                raise BadInput("corrupt-image", f"the checksum of frame {video.frames[frame].name!r} differs from the "
                               "index.", video=video.video_id, file=name,
                               cure="Copy the shard and its index again from their source.")
        return [(parts[0], parts[1] if len(parts) == 2 else None) for parts in stored]

    return fetch


def _members(shards: ShardSet, video: StoredVideo, frame: int) -> dict[str, int]:
    """The members of a frame, the image and the label if it has one: name -> length in bytes."""
    stored = video.frames[frame]
    clip, index = divmod(stored.index, shards.clip_frames)
    return {f"{clip_key(video.video_id, clip)}.f{index:03d}.{suffix}": length
            for suffix, (_, length) in (("jpg", stored.image), *([("png", stored.label)] if stored.label else []))}


class _Steps:
    """The steps of one rank with their draws, without end."""

    def __init__(self, plan: SamplePlan | MixedPlan, *, rank: int, world: int, step: int) -> None:
        self.plan = plan
        self.rank = rank
        self.world = world
        self.step = step

    def __iter__(self) -> Iterator[tuple[int, list[Draw]]]:
        return ((step, self.plan.batch(step, rank=self.rank, world=self.world)) for step in count(self.step))


def _as_it_is(packed: PackedBatch | BadInput) -> PackedBatch | BadInput:
    return packed


def never_drawn(shards: ShardSet, config: InputConfig) -> int:
    """The number of videos that training leaves out, since they hold no object, or no clip that has enough frames and
    a label.
    """
    return int(np.count_nonzero(clips_per_epoch(shards.videos, config) == 0))


def _clips_per_video(shards: ShardSet, config: InputConfig) -> int | np.ndarray:
    """The clips of an epoch: one number if it is the same for every video."""
    clips = clips_per_epoch(shards.videos, config)
    if len(clips) and not clips.any():
        raise ValueError(f"no video in {shards.folder} has a clip of {config.clip_frames} frames with an object in the "
                         "video; set stage_one.input.clip_frames, stage_one.input.frame_stride, "
                         "stage_one.input.sampling or stage_one.input.drop_empty accordingly")
    return int(clips[0]) if len(clips) and (clips == clips[0]).all() else clips


def _videos_of_shards(shards: ShardSet) -> list[range]:
    """For each shard, the positions of its videos in `shards.videos`, which are consecutive."""
    sizes = np.bincount(shards.videos.shards, minlength=len(shards.manifest["shards"])).tolist()
    return [range(end - size, end) for end, size in zip(accumulate(sizes), sizes)]


def _refuse_unfit_stills(shards: ShardSet, stills: ShardSet, config: InputConfig) -> None:
    videos, images = ([info.name for info in shard_set.classes.classes] for shard_set in (shards, stills))
    if videos != images:
        raise ValueError(f"the stills in {stills.folder} have the classes of {stills.classes.name}, the videos in "
                         f"{shards.folder} those of {shards.classes.name}; both need the same names in the same order. "
                         "For COCO, set stage_one.stills.dataset.classes and make the shards again")
    if config.streaming:
        raise ValueError("stills are read by index; set stage_one.input.streaming=false")
    if config.sampling == "windows" or config.drop_empty or config.refuse:
        raise ValueError(f"beside stills, every video is drawn equally often, but stage_one.input has "
                         f"sampling={config.sampling}, drop_empty={config.drop_empty} and refuse={config.refuse}; set "
                         "them to videos, false and null, or leave stage_one.stills out")
