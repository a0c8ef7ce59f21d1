"""Opening, planning and finishing sets of up to a million videos, from metadata alone.

The sidecars, the plan and the manifest are those of real shards of 80 videos with 24 frames and 12 segments each. The
tars are empty files of the right length, which take no space. A query cache of as many videos, with two views of each,
has parts of real rows, which are two files under many names. Each number is that of a process of its own: seconds from
the folder to the open set, memory that the process gained (mapped files included), seconds to the draws of a first
step, and from the folder to a step in the middle of the second epoch. `finish` merges the sidecars; its memory is the
peak above the level before.

    python -m benchmarks scale                                          # 10,000 videos
    python -m benchmarks.scale --videos 10000 100000 1000000            # and how each number grows
"""

from __future__ import annotations

import argparse
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.harness import Results, peak_megabytes
from model.labels import ClassTable
from pipeline.clips import AugmentConfig
from pipeline.digests import SETTLED
from pipeline.files import canonical_json
from pipeline.query_cache import (
    CachedClip,
    CacheWriter,
    QueryCache,
    QueryInputConfig,
    drawn_videos,
    finish_cache,
    part_path,
)
from pipeline.shards import ShardConfig, ShardPlan, ShardSet
from pipeline.shards.finish import finish
from pipeline.shards.format import META, SCHEMA, clip_key
from pipeline.shards.index import index_row
from pipeline.training_input import InputConfig, SamplePlan, enough_samples, training_plan

MEASURES = ("pipeline/digests.py", *(f"pipeline/shards/{name}.py" for name in ("finish", "index", "reader", "videos")),
            "pipeline/query_cache/batches.py", "pipeline/query_cache/cache.py", "pipeline/query_cache/view_table.py",
            "pipeline/training_input/sample_plan.py")

VIDEOS_OF_SHARD = 80
FRAMES = 24
CLIP_FRAMES = 8
SEGMENTS = 12
VIEWS = 2
IMAGE = 90_000              # bytes
LABEL = 9_000
CONFIG = InputConfig(augment=AugmentConfig(size=(65, 97)), batch_size=16, workers=0)
WINDOWS = QueryInputConfig(clips=6, batch_size=16, sampling="windows")
SOURCE = {"segmenter": "scale", "clip_frames": 2}
UNITS = {"open": "s", "added memory": "MB", "first plan": "s", "first plan of windows": "s", "resume": "s"}


@dataclass(frozen=True, kw_only=True)
class Size:
    """The numbers of videos that are measured, one set after another."""

    videos: tuple[int, ...]


SIZES = {"toy": Size(videos=(2 * VIDEOS_OF_SHARD, 3 * VIDEOS_OF_SHARD)), "full": Size(videos=(10_000,))}


def run(size: Size, results: Results) -> None:
    """Measure a shard set and a query cache of each size."""
    rows = {videos: measured(videos, results) for videos in size.videos}
    for smaller, larger in pairwise(size.videos):
        for name, value in rows[larger].items():
            times = value / max(rows[smaller][name], 1e-9)
            print(f"{name}: {larger / smaller:.3g} times the videos, {times:.3g} times as much")


def measured(videos: int, results: Results) -> dict[str, float]:
    """The numbers of one size, by name; they are stored in the results."""
    values = {}
    with tempfile.TemporaryDirectory() as folder, own_memory_of_digests(Path(folder)):
        plan = write_sidecars(Path(folder) / "shards", videos)
        seconds, megabytes = in_a_process(finished, Path(folder) / "shards", plan)
        values |= {"shards, finish": (seconds, "s"), "shards, finish, peak memory": (megabytes, "MB")}
        for sidecar in (Path(folder) / "shards").glob("train-*.json"):
            sidecar.unlink()
        values |= {f"shards, {name}": (value, UNITS[name]) for name, value in in_a_process(
            opened_shards, Path(folder) / "shards", videos).items()}
        values["shards, pickle"] = (in_a_process(pickled_bytes, Path(folder) / "shards"), "bytes")
        write_cache(Path(folder) / "cache", videos)
        values["cache, first opening on a machine"] = (in_a_process(compared_cache, Path(folder) / "cache"), "s")
        values |= {f"cache, {name}": (value, UNITS[name]) for name, value in in_a_process(
            opened_cache, Path(folder) / "cache", videos).items()}
    for name, (value, unit) in values.items():
        results.add(f"{name}, {videos:,} videos", value, unit)
    return {name: value for name, (value, _) in values.items()}


@contextmanager
def own_memory_of_digests(folder: Path) -> Iterator[None]:
    """Processes that are started here remember what they read in a folder of their own."""
    with patch.dict(os.environ, {"TMPDIR": str(folder)}):
        yield


def in_a_process(measure: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a new process, which has only imported this module."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def finished(folder: Path, plan: ShardPlan) -> tuple[float, float]:
    """Seconds and peak memory of merging the sidecars."""
    started = time.perf_counter()
    megabytes = peak_megabytes(lambda: finish(folder, plan, {}))
    return time.perf_counter() - started, megabytes or 0.0


def opened_shards(folder: Path, videos: int) -> dict[str, float]:
    """Open a shard set, plan a first step, and one in the middle of the second epoch as after a resume."""
    before = resident_megabytes()
    started = time.perf_counter()
    shards = ShardSet(folder)
    opened = time.perf_counter()
    added = resident_megabytes() - before
    first_batch(shards, CONFIG, 0)
    planned = time.perf_counter()
    first_batch(shards, replace(CONFIG, sampling="windows"), 0)
    windows = time.perf_counter()
    if len(shards.videos) != videos:
        raise ValueError(f"{len(shards.videos)} videos instead of {videos}")
    resumed = time.perf_counter()
    again = ShardSet(folder)
    first_batch(again, CONFIG, training_plan(again, CONFIG).steps_per_epoch * 3 // 2)
    return {"open": opened - started, "added memory": added, "first plan": planned - opened,
            "first plan of windows": windows - planned, "resume": time.perf_counter() - resumed}


def first_batch(shards: ShardSet, config: InputConfig, step: int) -> None:
    """The draws of a step, and the videos that they need."""
    for draw in training_plan(shards, config).batch(step):
        if len(shards.videos[draw.video].frames) != FRAMES:
            raise ValueError(f"video {draw.video} is not whole")


def pickled_bytes(folder: Path) -> int:
    """The bytes that a process sends of an open set."""
    return len(pickle.dumps(ShardSet(folder)))


def compared_cache(folder: Path) -> float:
    """Open a cache and compare all its parts, as the first process on a machine does."""
    started = time.perf_counter()
    QueryCache(folder).refuse_damage()
    return time.perf_counter() - started


def opened_cache(folder: Path, videos: int) -> dict[str, float]:
    """Open a cache whose parts are known, plan a first step, and one in the middle of the second epoch."""
    before = resident_megabytes()
    started = time.perf_counter()
    cache = QueryCache(folder)
    opened = time.perf_counter()
    added = resident_megabytes() - before
    first_windows(cache, 0)
    planned = time.perf_counter()
    if len(cache.videos) != videos:
        raise ValueError(f"{len(cache.videos)} videos instead of {videos}")
    resumed = time.perf_counter()
    first_windows(QueryCache(folder), videos // WINDOWS.batch_size * 3 // 2)
    return {"open": opened - started, "added memory": added, "first plan": planned - opened,
            "resume": time.perf_counter() - resumed}


def first_windows(cache: QueryCache, step: int) -> None:
    """The draws of a step of stage two, and the views from which they may come."""
    drawn = drawn_videos(cache, WINDOWS)
    plan = SamplePlan(count=drawn.samples, global_batch=WINDOWS.batch_size, samples_per_video=enough_samples(
        1, videos=drawn.samples, clips=WINDOWS.batch_size))
    for draw in plan.batch(step):
        if not len(drawn.views_of(draw.video)):
            raise ValueError(f"sample {draw.video} has no view")


def resident_megabytes() -> float:
    """Memory of this process, mapped files included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_sidecars(folder: Path, videos: int) -> ShardPlan:
    """The plan, the sidecars (without seals) and empty tars of a set whose shards are made."""
    folder.mkdir(parents=True)
    count = shards_of(videos)
    plan = ShardPlan(split="train", categories=ClassTable.numbered(20).to_json(),
                     config=ShardConfig(clip_frames=CLIP_FRAMES),
                     shards=tuple(tuple(ids_of(shard)) for shard in range(count)))
    facts = sidecar_of_first()
    text = canonical_json({**facts, "plan": plan.digest})
    for shard in range(count):
        content = text.replace(b"video_000000_", f"video_{shard:06d}_".encode()).replace(
            b'"shard":0,', f'"shard":{shard},'.encode()).replace(b"train-000000.tar", plan.name(shard).encode())
        (folder / plan.name(shard)).with_suffix(".json").write_bytes(content)
        with open(folder / plan.name(shard), "wb") as tar:
            tar.truncate(facts["size"])
    return plan


def shards_of(videos: int) -> int:
    """The number of full shards. Raises ValueError where the last one would not be full."""
    if videos % VIDEOS_OF_SHARD:
        raise ValueError(f"{videos} videos do not fill shards of {VIDEOS_OF_SHARD}; give a multiple of it")
    return videos // VIDEOS_OF_SHARD


def ids_of(shard: int) -> list[str]:
    """The videos of a shard."""
    return [f"video_{shard:06d}_{place:02d}" for place in range(VIDEOS_OF_SHARD)]


def sidecar_of_first() -> dict[str, Any]:
    """The sidecar of the first shard; those of the others differ in names only."""
    rows = []
    end = 0
    for video in ids_of(0):
        for clip in range(FRAMES // CLIP_FRAMES):
            key = clip_key(video, clip)
            members = []
            for suffix in [f"f{frame:03d}.{kind}" for frame in range(CLIP_FRAMES) for kind in ("jpg", "png")] + [META]:
                length = {"jpg": IMAGE, "png": LABEL}.get(suffix[-3:], 2_000)
                members.append({"name": f"{key}.{suffix}", "offset": end + 512, "length": length,
                                "crc32": 2**31 + end % 2**20})
                end += 512 + -(-length // 512) * 512
            names = [f"{frame:08d}" for frame in range(clip * CLIP_FRAMES, (clip + 1) * CLIP_FRAMES)]
            segments = [{"id": segment + 1, "source_id": 1000 + segment, "class_index": segment, "is_crowd": False}
                        for segment in range(SEGMENTS)]
            meta = {"video_id": video, "clip_index": clip, "start_frame": clip * CLIP_FRAMES, "num_frames": CLIP_FRAMES,
                    "height": 720, "width": 1280, "frame_names": names, "segments": segments, "overlaps": []}
            rows.append(index_row(meta, key=key, shard=0, members=members))
    return {"schema": SCHEMA, "name": "train-000000.tar", "size": end + 10_240, "sha256": "0" * 64,
            "videos": VIDEOS_OF_SHARD, "clips": len(rows), "frames": VIDEOS_OF_SHARD * FRAMES, "skipped": {},
            "errors": [], "index": rows, "classes": [], "remarks": {}, "faults": []}


def write_cache(folder: Path, videos: int) -> None:
    """A cache with two views of every video, whose parts are the same two files under many names."""
    parts = []
    for view in range(VIEWS):
        writer = CacheWriter(folder / "parts", 0, view=view, dtype="float16", fingerprint="f")
        for video in ids_of(0):
            writer.add([clip_of(video, index, view) for index in range(FRAMES // 2)])
        parts.append((writer.path, writer.close()))

    def summaries() -> Iterator[dict[str, Any]]:
        for shard in range(shards_of(videos)):
            for view, (path, summary) in enumerate(parts):
                name = part_path(folder, shard, view)
                os.link(path, name)
                groups = [(video, view, FRAMES // 2) for video in ids_of(shard)]
                yield {**summary, "file": name.name, "groups": groups}

    finish_cache(folder, SOURCE, summaries())
    time.sleep(SETTLED + 0.5)       # younger files are read again by every process


def clip_of(video: str, index: int, view: int) -> CachedClip:
    """A clip of the cache with small tensors."""
    return CachedClip(
        video_id=video, view=view, clip_index=index, start_frame=2 * index, num_frames=2, height=720, width=1280,
        queries=np.zeros((2, 4), np.float16), mask_embeddings=np.zeros((2, 4), np.float16),
        class_logits=np.zeros((2, 3), np.float16), pixel_features=np.zeros((4, 4), np.float16),
        pixel_positions=np.zeros((4, 3), np.int16), pixel_tubes=np.zeros(4, np.int32),
        pixel_weights=np.ones(4, np.float32), tube_ids=np.arange(1), tube_classes=np.zeros(1, np.int32),
        tube_areas=np.ones(1, np.int32))


def main() -> None:
    """Measure sets of the given sizes, and print how each number grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[10_000, 100_000, 1_000_000],
                        help=f"multiples of {VIDEOS_OF_SHARD}, ascending; a million takes 8 GB of the disk for a while")
    run(Size(videos=tuple(parser.parse_args().videos)), Results("scale", measures=MEASURES))


if __name__ == "__main__":
    main()
