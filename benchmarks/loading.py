"""Training input against pure JPEG decoding of the same frames, with equally many loader processes on the same cores.

    python -m benchmarks.loading

Ours reads shards of the synthetic world at 1280x720, decodes images and id maps, draws scale, crop, flip and colours,
makes targets and returns batches at 769x1345. The baseline decodes the JPEGs of the same draws and discards the pixels.
With copy-paste, both also decode the donors. Both loaders have equally many prefetched batches when a round begins.
Page faults after the warm-up round show whether the allocator is set up well; processor time is the steadier number
when other programs are running.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from torch.utils.data import DataLoader

from benchmarks.harness import compare
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

WORLD = SyntheticConfig(videos_train=8, videos_val=0, frames=12, height=720, width=1280)
BATCHES = 24        # per round, 8 frames each
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "536870912", "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Print and store the ratios: by index, with copy-paste, streaming."""
    plain = {"augment": AugmentConfig(size=(769, 1345)), "batch_size": 4, "workers": 2}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_shards(VipSeg(str(write_world(folder / "world", WORLD))), folder / "shards", split="train")
        shards = ShardSet(folder / "shards")
        for name, config in (("by index", InputConfig(**plain, copy_paste=None)),
                             ("by index, copy-paste", InputConfig(**plain, copy_paste=CopyPasteConfig())),
                             ("streaming", InputConfig(**plain, copy_paste=None, streaming=True, samples_per_video=6))):
            frames = BATCHES * config.batch_size * config.clip_frames * (2 if config.copy_paste else 1)
            ours, baseline = (Rounds(partial(start, shards, config)) for start in (training_batches, decoding))
            compare(f"training input {name}, {frames} frames", ours=ours, baseline=baseline)
            for side, rounds in (("ours", ours), ("baseline", baseline)):
                faults, seconds = rounds.last
                print(f"    {side}: {faults / frames:.1f} page faults and {1000 * seconds / frames:.2f} ms of "
                      "processor time per frame")
            ours.close()
            baseline.close()


class Rounds:
    """Each call takes a round of batches from a running loader. `last`: its page faults and processor seconds."""

    def __init__(self, start: Callable[[], Iterator]) -> None:
        before = {process.pid for process in multiprocessing.active_children()}
        self.batches = start()
        self.last = (0.0, 0.0)
        self.processes = {process.pid for process in multiprocessing.active_children()} - before

    def __call__(self) -> None:
        before = self._used()
        for _ in range(BATCHES):
            next(self.batches)
        self.last = tuple(after - then for after, then in zip(self._used(), before))

    def close(self) -> None:
        """End the loader's processes."""
        self.batches.close()

    def _used(self) -> tuple[float, float]:
        """Minor page faults and processor seconds so far, of the loader's processes and this one."""
        stats = [Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                 for process in (*self.processes, os.getpid())]
        ticks = sum(int(stat[11]) + int(stat[12]) for stat in stats)
        return sum(int(stat[7]) for stat in stats), ticks / os.sysconf("SC_CLK_TCK")


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


if __name__ == "__main__":
    if not MALLOC.items() <= os.environ.items():       # glibc reads these when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.loading"], os.environ | MALLOC)
    main()
