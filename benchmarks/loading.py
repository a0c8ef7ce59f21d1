"""Training input against pure JPEG decoding of the same frames, with equally many loader processes on the same cores.

Ours reads shards of the synthetic world at 1280x720, decodes images and id maps, draws scale, crop, flip and colours,
makes targets and returns batches at 769x1345. The baseline decodes the JPEGs of the same draws and discards the pixels.
With copy-paste, both also decode the donors. Both loaders have equally many prefetched batches when a round begins.
Page faults after the warm-up round show whether the allocator is set up well; processor time is the steadier number
when other programs are running.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch.utils.data import DataLoader

from benchmarks.harness import Results
from pipeline.clips import AugmentConfig
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.vipseg import VipSeg
from pipeline.images import decode_jpeg
from pipeline.shards import ShardSet, make_shards
from pipeline.training_input import (
    BatchSlots,
    CopyPasteConfig,
    Draw,
    IndexedClips,
    InputConfig,
    plan_clip,
    read_frames,
    training_batches,
    training_plan,
)

MEASURES = (*(f"pipeline/training_input/{name}.py" for name in (
    "batch_slots", "copy_paste", "loading", "targets", "training_clips")), "pipeline/clips/augment.py",
    "pipeline/images.py")


@dataclass(frozen=True, kw_only=True)
class Size:
    """The world, height and width of the clips, and the batches of a round."""

    world: SyntheticConfig
    clip: tuple[int, int]
    batches: int


SIZES = {"toy": Size(world=SyntheticConfig(videos_train=8, videos_val=0, frames=4), clip=(65, 97), batches=2),
         "full": Size(world=SyntheticConfig(videos_train=8, videos_val=0, frames=12, height=720, width=1280),
                      clip=(769, 1345), batches=24)}


def run(size: Size, results: Results) -> None:
    """Compare by index, with copy-paste, and streaming."""
    plain = {"augment": AugmentConfig(size=size.clip), "batch_size": 4, "workers": 2}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_shards(VipSeg(str(write_world(folder / "world", size.world))), folder / "shards", split="train")
        shards = ShardSet(folder / "shards")
        for name, config in (("by index", InputConfig(**plain, copy_paste=None)),
                             ("by index, copy-paste", InputConfig(**plain, copy_paste=CopyPasteConfig())),
                             ("streaming", InputConfig(**plain, copy_paste=None, streaming=True, samples_per_video=6))):
            compare_loading(name, shards, config, size.batches, results)


def compare_loading(name: str, shards: ShardSet, config: InputConfig, batches: int, results: Results) -> None:
    """Time rounds of batches, and print the page faults and the processor time of the last round of each side."""
    frames = batches * config.batch_size * config.clip_frames * (2 if config.copy_paste else 1)
    ours, baseline = (Rounds(partial(start, shards, config), batches) for start in (training, decoding))

    def agree(trained: int, decoded: int) -> None:
        donors = frames - batches * config.batch_size * config.clip_frames
        assert trained + donors == decoded == frames, f"{trained} frames with {donors} of donors, {decoded}, {frames}"

    results.compare(f"training input {name}, {frames} frames", ours=ours, baseline=baseline, agree=agree)
    for side, rounds in (("ours", ours), ("baseline", baseline)):
        faults, seconds = rounds.last
        print(f"    {side}: {faults / frames:.1f} page faults and {1000 * seconds / frames:.2f} ms of processor time "
              "per frame")
        rounds.close()


class Rounds:
    """Each call takes a round of batches from a running loader, and returns the number of their frames.

    `last`: the page faults and processor seconds of the last call.
    """

    def __init__(self, start: Callable[[], Iterator[int]], count: int) -> None:
        before = {process.pid for process in multiprocessing.active_children()}
        self.count = count
        self.batches = start()
        self.last = (0.0, 0.0)
        self.processes = {process.pid for process in multiprocessing.active_children()} - before

    def __call__(self) -> int:
        before = self._used()
        frames = sum(next(self.batches) for _ in range(self.count))
        self.last = tuple(after - then for after, then in zip(self._used(), before))
        return frames

    def close(self) -> None:
        """End the loader's processes."""
        self.batches.close()

    def _used(self) -> tuple[float, float]:
        """Minor page faults and processor seconds so far, of the loader's processes and this one."""
        stats = [Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                 for process in (*self.processes, os.getpid())]
        ticks = sum(int(stat[11]) + int(stat[12]) for stat in stats)
        return sum(int(stat[7]) for stat in stats), ticks / os.sysconf("SC_CLK_TCK")


def training(shards: ShardSet, config: InputConfig) -> Iterator[int]:
    """Ours: training batches, of which only the number of frames is kept."""
    return (batch.frames.shape[0] * batch.frames.shape[1] for batch in training_batches(shards, config))


def decoding(shards: ShardSet, config: InputConfig) -> Iterator[int]:
    """The baseline: the same DataLoader with the same draws only decodes JPEGs."""
    plan = training_plan(shards, config)
    steps = ((step, plan.batch(step)) for step in range(1_000_000))
    dataset = DecodedOnly([shards], BatchSlots(config, share=config.batch_size))
    loader = DataLoader(dataset, sampler=steps, batch_size=None, num_workers=config.workers,
                        prefetch_factor=config.prefetch)
    return (frames for frames in loader)


class DecodedOnly(IndexedClips):
    """Decodes frames and returns their number."""

    def __getitem__(self, at: tuple[int, list[Draw]]) -> int:
        donors = range(len(self.videos))
        plans = [plan_clip(draw, self.videos, self.slots.config, donors=donors) for draw in at[1]]
        parts = [part for plan in plans for part in (plan.clip, plan.donor) if part]
        return len([decode_jpeg(jpeg) for part in parts
                    for jpeg, _ in read_frames(self.sets[0], part.video, part.frames)])
