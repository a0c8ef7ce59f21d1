"""A canvas for each batch against one fixed canvas that holds every clip: loading, a training step, memory, padding.

The official size has YouTube-VIS' short sides of 288 to 512 pixels, the full one half of them. Both sides train on the
same clips, which are never cropped. "Equal canvases" has one short side and one shape of frames, so that nothing but
the bookkeeping differs. A ratio of 0.95 or more is expected there, and more than 1 elsewhere. Clips are loaded without
loader processes, whose prefetching would reach into the rounds of the other side. The table of real pixels shows what
padding costs by the number of clips of a batch, in the order of training and sorted by shape within groups of eight
batches.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Results
from jobs.recipes.tiny_tube_link import tiny_tube_link
from model.contracts import ClipBatch
from model.losses.mask2former import Mask2FormerLossConfig
from model.losses.points import PointConfig
from pipeline.clips import AugmentConfig, draw_transform
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.vipseg import VipSeg
from pipeline.shards import ShardSet, make_shards
from pipeline.training_input import BatchSlots, IndexedClips, InputConfig, SamplePlan

CLASSES = 124
FRAMES = 2
BATCH = 2
BATCHES = 4         # of a round
SHAPES = {"wide": (720, 1280), "upright": (1280, 720), "older": (480, 640)}
MIX = ("wide",) * 6 + ("upright", "older")      # of YouTube-VIS' kinds, in rough proportion

MEASURES = (*(f"pipeline/training_input/{name}.py" for name in (
    "batch_slots", "loading", "targets", "training_clips")), "pipeline/clips/augment.py")


@dataclass(frozen=True, kw_only=True)
class Size:
    """The part of YouTube-VIS' sizes that a side has, and the drawn clips of the table of real pixels."""

    part: int
    drawn: int


SIZES = {"toy": Size(part=8, drawn=40), "full": Size(part=2, drawn=4000), "official": Size(part=1, drawn=4000)}


def run(size: Size, results: Results) -> None:
    """Compare loading and training steps, and keep the shares of real pixels."""
    sides = tuple(side // size.part for side in range(288, 513, 32))
    sources = {name: (height // size.part, width // size.part) for name, (height, width) in SHAPES.items()}
    with tempfile.TemporaryDirectory() as temporary:
        sets = {name: world(Path(temporary) / name, size) for name, size in sources.items()}
        wide = [sets["wide"]]
        for name, shard_sets, short_side in (
                ("equal canvases", wide, (sides[2],)), ("16:9", wide, sides),
                ("mixed", [sets[kind] for kind in MIX], sides)):
            own = InputConfig(augment=AugmentConfig(size=None, short_side=short_side, scale=(1, 1), pad_to=32),
                              batch_size=BATCH, clip_frames=FRAMES, copy_paste=None, workers=0)
            largest = own.augment.largest_canvas((v.height, v.width) for shards in shard_sets for v in shards.videos)
            fixed = replace(own, augment=replace(own.augment, size=largest, pad_to=None))
            compare_loading(name, shard_sets, own, fixed, results)
            compare_steps(name, shard_sets, own, fixed, results)
    for name, kinds in (("16:9", ("wide",)), ("mixed", MIX)):
        count_real_pixels(name, [SHAPES[kind] for kind in kinds], size.drawn, results)


def world(folder: Path, size: tuple[int, int]) -> ShardSet:
    """Shards of four synthetic videos with frames of `size`."""
    config = SyntheticConfig(videos_train=4, videos_val=0, frames=6, height=size[0], width=size[1])
    make_shards(VipSeg(str(write_world(folder / "world", config))), folder / "shards", split="train")
    return ShardSet(folder / "shards")


def batches(sets: Sequence[ShardSet], config: InputConfig) -> Iterator[ClipBatch]:
    """Training batches over several shard sets of the same classes, without end."""
    videos = [video for shards in sets for video in shards.videos]
    slots = BatchSlots(config, share=config.batch_size, sources={(video.height, video.width) for video in videos})
    plan = SamplePlan(count=len(videos), global_batch=config.batch_size, seed=0, samples_per_video=1)
    steps = ((step, plan.batch(step)) for step in itertools.count())
    clips = IndexedClips(sets, slots)
    return (slots.take(clips[step]) for step in steps)


def compare_loading(name: str, sets: Sequence[ShardSet], own: InputConfig, fixed: InputConfig,
                    results: Results) -> None:
    """Time rounds of batches, and compare the memory of the slots that loader processes would share."""
    loaders = [batches(sets, config) for config in (own, fixed)]
    rounds = [lambda loader=loader: [next(loader) for _ in range(BATCHES)] for loader in loaders]
    results.compare(f"canvas per batch, loading, {name}", ours=rounds[0], baseline=rounds[1], repeats=15,
                    agree=same_clips)
    print(f"    memory of the slots for two loader processes: {slots_megabytes(sets, own):.1f} MB against "
          f"{slots_megabytes(sets, fixed):.1f} MB")


def same_clips(own: list[ClipBatch], fixed: list[ClipBatch]) -> None:
    """The same pixels of the same clips lie on both canvases."""
    for one, other in zip(own, fixed, strict=True):
        assert (one.videos, one.samples) == (other.videos, other.samples)
        pixels, others = (batch.frames.movedim(2, -1)[batch.real_pixels] for batch in (one, other))
        assert torch.equal(pixels, others)


def slots_megabytes(sets: Sequence[ShardSet], config: InputConfig) -> float:
    """Shared memory of the slots after each was written a few times."""
    before = shared_megabytes()
    filled = batches(sets, replace(config, workers=2))
    for _ in range(20):
        next(filled)
    return shared_megabytes() - before


def compare_steps(name: str, sets: Sequence[ShardSet], own: InputConfig, fixed: InputConfig,
                  results: Results) -> None:
    """Time forward and backward passes of a small Tube-Link on the same clips, on a GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    segmenter = tiny_tube_link(CLASSES, layers=(1, 3)).build().train().to(device)
    criterion = Mask2FormerLossConfig(points=PointConfig(count=1024)).build()

    def passes(config: InputConfig) -> Callable[[], None]:
        taken = [batch.to(device) for batch in itertools.islice(batches(sets, config), BATCHES)]

        def run() -> None:
            for batch in taken:
                prediction = segmenter(batch.frames, batch.real_pixels, supervise=True)
                sum(criterion(prediction, batch.targets).values()).backward()
                segmenter.zero_grad()
        return run

    results.compare(f"canvas per batch, training step, {name}", ours=passes(own), baseline=passes(fixed), repeats=3,
                    memory=True, device=device)


def count_real_pixels(name: str, sources: Sequence[tuple[int, int]], clips: int, results: Results) -> None:
    """Print the share of real pixels on the canvases of clips of YouTube-VIS' sizes; keep that of one clip a batch."""
    augment = AugmentConfig(size=None, short_side=tuple(range(288, 513, 32)), scale=(1, 1), pad_to=32)
    rng = np.random.default_rng(0)
    drawn = [draw_transform(rng, augment, sources[rng.integers(len(sources))]).resized for _ in range(clips)]
    fixed = augment.largest_canvas(sources)
    print(f"real pixels, {name}: {real_share([[one] for one in drawn], lambda group: fixed):.0%} of a fixed canvas "
          f"{fixed[0]}x{fixed[1]}")
    for batch in (1, 2, 4, 8):
        in_order, by_shape = (real_share(groups(drawn, batch, by_shape=by_shape), augment.canvas)
                              for by_shape in (False, True))
        if batch == 1:
            results.add(f"real pixels of one clip a batch, {name}", 100 * in_order, "%")
        print(f"    {batch} clips a batch: {in_order:.0%} in order, {by_shape:.0%} sorted by shape")


def groups(sizes: Sequence[tuple[int, int]], batch: int, *, by_shape: bool) -> list[list[tuple[int, int]]]:
    """Sizes in batches. by_shape: those of eight batches are sorted by width over height, then by height."""
    if by_shape:
        sizes = [size for start in range(0, len(sizes), 8 * batch)
                 for size in sorted(sizes[start:start + 8 * batch], key=lambda size: (size[1] > size[0], size))]
    return [list(sizes[start:start + batch]) for start in range(0, len(sizes), batch)]


def real_share(batches: Sequence[Sequence[tuple[int, int]]], canvas: Callable) -> float:
    """Real pixels of all batches over all pixels of their canvases."""
    areas = [len(batch) * np.prod(canvas(batch)) for batch in batches]
    return sum(height * width for batch in batches for height, width in batch) / sum(areas)


def shared_megabytes() -> float:
    """Memory of this process that it could share with others, as far as it was used."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssShmem")) / 1024
