"""Training input against pure JPEG decoding of the same frames, by as many loader processes on the same cores.

    python -m benchmarks.loading

Ours reads from shards of the synthetic world at 1280x720, decodes images and id maps, draws scale, crop, flip and
colours, makes targets and hands over batches at 769x1345. The baseline decodes the JPEGs of the same draws and throws
the pixels away. With copy-paste both also decode the donors. Both loaders stand ready with as many prefetched batches
when a round begins. Page faults per frame, after the warm-up round, say whether the allocator was set up as it should.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch.utils.data import DataLoader

from benchmarks.harness import compare
from pipeline.augment import AugmentConfig
from pipeline.batch_slots import BatchSlots
from pipeline.copy_paste import CopyPasteConfig
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.vipseg import VipSeg
from pipeline.images import decode_jpeg
from pipeline.loading import IndexedClips, sample_plan, training_batches
from pipeline.sample_plan import Draw
from pipeline.shards import ShardSet, make_shards
from pipeline.training_clips import InputConfig, plan_clip

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
            ours, baseline = Rounds(training_batches(shards, config)), Rounds(decoding(shards, config))
            compare(f"training input {name}, {frames} frames", ours=ours, baseline=baseline)
            print(f"    page faults per frame: ours {ours.faults / frames:.1f}, "
                  f"baseline {baseline.faults / frames:.1f}")
            ours.close()
            baseline.close()


class Rounds:
    """Call it to draw one round of batches from a standing loader; `faults` are those of the last round."""

    def __init__(self, batches: Iterator) -> None:
        known = {process.pid for process in multiprocessing.active_children()}
        self.batches, self.faults = batches, 0
        next(batches)       # the loader has begun
        self.processes = {process.pid for process in multiprocessing.active_children()} - known

    def __call__(self) -> None:
        before = self._faults()
        for _ in range(BATCHES):
            next(self.batches)
        self.faults = self._faults() - before

    def close(self) -> None:
        """End the loader's processes."""
        self.batches.close()

    def _faults(self) -> int:
        """Pages mapped so far by the loader's processes and this one, without reading from disk."""
        stats = (Path(f"/proc/{process}/stat").read_text() for process in (*self.processes, os.getpid()))
        return sum(int(stat.rpartition(")")[2].split()[7]) for stat in stats)


def decoding(shards: ShardSet, config: InputConfig) -> Iterator[int]:
    """The baseline: the same draws by the same DataLoader, JPEGs decoded and nothing else."""
    plan = sample_plan(shards, config)
    steps = ((step, plan.batch(step)) for step in range(1_000_000))
    dataset = DecodedOnly(shards, BatchSlots(config, share=config.batch_size))
    loader = DataLoader(dataset, sampler=steps, batch_size=None, num_workers=config.workers,
                        prefetch_factor=config.prefetch)
    return (frames for frames in loader)


class DecodedOnly(IndexedClips):
    """Frames decoded, and how many there were."""

    def __getitem__(self, at: tuple[int, list[Draw]]) -> int:
        videos, config = self.shards.videos, self.slots.config
        plans = [plan_clip(draw, videos, config, donors=range(len(videos))) for draw in at[1]]
        parts = [part for plan in plans for part in (plan.clip, plan.donor) if part]
        return len([decode_jpeg(jpeg) for part in parts for jpeg, _ in self._fetch(part.video, part.frames)])


if __name__ == "__main__":
    if not MALLOC.items() <= os.environ.items():       # glibc reads these when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.loading"], os.environ | MALLOC)
    main()
