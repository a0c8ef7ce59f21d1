"""Training input against pure JPEG decoding of the same frames, by as many loader processes on the same cores.

    python -m benchmarks.loading

Ours reads from shards of the synthetic world at 1280x720, decodes images and id maps, draws scale, crop, flip and
colours, makes targets and hands over batches at 769x1345. The baseline decodes the JPEGs of the same draws and throws
the pixels away. With copy-paste both also decode the donors. Both loaders stand ready with as many prefetched batches
when a round begins. Page faults, after the warm-up round, say whether the allocator is set up as it should be;
processor time is the steadier number where other programs run beside.
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
    training_batches,
    training_plan,
)

WORLD = SyntheticConfig(videos_train=8, videos_val=0, frames=12, height=720, width=1280)
BATCHES = 24        # per round, 8 frames each
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "536870912", "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Print and keep the ratios: by index, with copy-paste, streaming."""
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
            for who, rounds in (("ours", ours), ("baseline", baseline)):
                faults, seconds = rounds.last
                print(f"    {who}: {faults / frames:.1f} page faults and {1000 * seconds / frames:.2f} ms of processor "
                      "time per frame")
            ours.close()
            baseline.close()


class Rounds:
    """Call it to draw one round of batches from a standing loader; `last`: page faults, processor seconds of it."""

    def __init__(self, start: Callable[[], Iterator]) -> None:
        known = {process.pid for process in multiprocessing.active_children()}
        self.batches = start()
        self.last = (0.0, 0.0)
        self.processes = {process.pid for process in multiprocessing.active_children()} - known

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
    """The baseline: the same draws by the same DataLoader, JPEGs decoded and nothing else."""
    plan = training_plan(shards, config)
    steps = ((step, plan.batch(step)) for step in range(1_000_000))
    dataset = DecodedOnly(shards, BatchSlots(config, share=config.batch_size))
    loader = DataLoader(dataset, sampler=steps, batch_size=None, num_workers=config.workers,
                        prefetch_factor=config.prefetch)
    return (frames for frames in loader)


class DecodedOnly(IndexedClips):
    """Frames decoded, and how many there were."""

    def __getitem__(self, at: tuple[int, list[Draw]]) -> int:
        videos = self.shards.videos
        config = self.slots.config
        plans = [plan_clip(draw, videos, config, donors=range(len(videos))) for draw in at[1]]
        parts = [part for plan in plans for part in (plan.clip, plan.donor) if part]
        return len([decode_jpeg(jpeg) for part in parts for jpeg, _ in self._fetch(part.video, part.frames)])


if __name__ == "__main__":
    if not MALLOC.items() <= os.environ.items():       # glibc reads these when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.loading"], os.environ | MALLOC)
    main()
