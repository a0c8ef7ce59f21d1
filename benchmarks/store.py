"""Loading from an object store that is 20 ms away, and the share of a training step that would wait for it.

A SeaweedFS on this machine holds shards of the synthetic world at 1280x720, and a proxy delays its answers. The
training step is a pause of 0.4 s, an assumption for Video-kMaX with ResNet-50 on a GPU, so the data wait is the time
in which `next(batches)` blocks. Ours reads tars in place, the baseline the same tars from a local folder.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Results
from benchmarks.object_store import BUCKET, farther_away, object_store
from pipeline import store
from pipeline.clips import AugmentConfig
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.vipseg import VipSeg
from pipeline.shards import ShardSet, make_shards
from pipeline.training_input import InputConfig, training_batches

MEASURES = ("pipeline/store.py", "pipeline/shards/reader.py", "pipeline/training_input/loading.py")
ADDRESS = f"s3://{BUCKET}/shards"


@dataclass(frozen=True, kw_only=True)
class Size:
    """The world, height and width of the clips, steps that are measured, and the length of one."""

    world: SyntheticConfig
    clip: tuple[int, int]
    steps: int
    step_seconds: float
    latency: float = 0.02       # seconds


SIZES = {"toy": Size(world=SyntheticConfig(videos_train=4, videos_val=0, frames=4), clip=(65, 97), steps=2,
                     step_seconds=0.01),
         "full": Size(world=SyntheticConfig(videos_train=8, videos_val=0, frames=12, height=720, width=1280),
                      clip=(769, 1345), steps=24, step_seconds=0.4)}


def run(size: Size, results: Results) -> None:
    """Read clips of two frames, one a step, from both places."""
    with tempfile.TemporaryDirectory() as temporary, object_store(Path(temporary) / "server") as environment:
        os.environ.update(environment)
        tempfile.tempdir = temporary
        data = VipSeg(str(write_world(Path(temporary) / "world", size.world)))
        make_shards(data, Path(temporary) / "shards", split="train")
        make_shards(data, store.working_path(ADDRESS), split="train")
        with farther_away(environment["AWS_ENDPOINT_URL"], size.latency) as endpoint:
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            _reads(size, results)
            waits = {name: _wait_share(folder, size) for name, folder in (
                ("store", store.working_path(ADDRESS)), ("folder", Path(temporary) / "shards"))}
        tempfile.tempdir = None
    for name, share in waits.items():
        results.add(f"data wait, {name}", share, "of a step", latency=size.latency)


def _reads(size: Size, results: Results) -> None:
    """Reads a second of two frames each, by one thread and by several."""
    shards = ShardSet(store.working_path(ADDRESS))
    wanted = [video for video in shards.videos for _ in range(size.steps // 2)]
    for threads in (1, store.READERS):
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda video: shards.read(video, 0, 2), wanted[:threads]))
            began = time.perf_counter()
            list(pool.map(lambda video: shards.read(video, 0, 2), wanted))
            seconds = time.perf_counter() - began
        results.add(f"reads with {threads} threads", len(wanted) / seconds, "a second", latency=size.latency)


def _wait_share(folder: Path, size: Size) -> float:
    """The share of the steps' time in which they wait for data, after the first one."""
    config = InputConfig(augment=AugmentConfig(size=size.clip), batch_size=1, workers=2, copy_paste=None)
    batches: Iterator = training_batches(ShardSet(folder), config)
    next(batches)
    waited = 0.0
    began = time.perf_counter()
    for _ in range(size.steps):
        before = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - before
        time.sleep(size.step_seconds)
    batches.close()
    return waited / (time.perf_counter() - began)
