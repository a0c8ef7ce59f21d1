"""Workers whose parts of a batch differ in size train as one worker does that has the whole batch."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing import assert_close

from jobs.recipes import find_recipe
from jobs.training.loop import FitConfig, fit, rank, weight_of_share, world
from jobs.training.optimizer import OptimizerConfig, build_optimizer
from model.contracts import ClipBatch, ClipTargets
from pipeline.training_input.sample_plan import rows_of_rank

BATCH = 4
STEPS = 3
SIZE = (32, 48)
CONFIG = find_recipe("tiny").stage_one
LOSSES = replace(CONFIG.losses, pixel_weight=0.0)      # the pixels of that loss are drawn by each rank


def clips(step: int, rows: range) -> ClipBatch:
    """Some rows of a batch of noise; a clip has up to three objects."""
    parts = [clip(step * BATCH + row, objects=row % 3 + 1) for row in rows]
    return ClipBatch(frames=torch.stack([frames for frames, _ in parts]),
                     real_pixels=torch.ones(len(rows), CONFIG.segmenter_frames, *SIZE, dtype=torch.bool),
                     targets=tuple(target for _, target in parts), videos=tuple(map(str, rows)), samples=tuple(rows))


def clip(seed: int, *, objects: int) -> tuple[torch.Tensor, ClipTargets]:
    """Frames, and the objects in them, which share every pixel out among themselves."""
    generator = torch.Generator().manual_seed(seed)
    shape = (CONFIG.segmenter_frames, SIZE[0] // 4, SIZE[1] // 4)
    owner = torch.randint(0, objects, shape, generator=generator)
    frames = torch.randint(0, 256, (shape[0], 3, *SIZE), generator=generator, dtype=torch.uint8)
    classes = torch.randperm(CONFIG.segmenter.num_classes, generator=generator)[:objects]
    return frames, ClipTargets(masks=torch.stack([owner == tube for tube in range(objects)]), classes=classes,
                               track_ids=torch.arange(objects), void=torch.zeros(shape, dtype=torch.bool))


def train_rank(folder: Path, own: int, workers: int) -> None:
    """Train on the clips of one rank, and keep its losses, weighed by their share, and the trained weights."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = CONFIG.segmenter.build()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d | nn.BatchNorm3d):
            module.eval()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=own, world_size=workers)
    wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    criterion = LOSSES.build()
    seen = []

    def batches() -> Iterator[ClipBatch]:
        for step in range(STEPS):
            yield clips(step, rows_of_rank(BATCH, rank(), world()))

    def losses_of(batch: ClipBatch) -> dict[str, torch.Tensor]:
        losses = criterion(wrapped(batch.frames, batch.real_pixels, supervise=True), batch.targets)
        seen.append(float(sum(losses.values())) * weight_of_share(len(batch.videos), BATCH) / world())
        return losses

    rates = OptimizerConfig(lr=1e-3, warmup_steps=0)
    fit(wrapped, batches(), losses_of, optimizer=build_optimizer(model, rates), rates=rates, batch_size=BATCH,
        config=FitConfig(steps=STEPS), log=lambda report: None,
        save=lambda step: torch.save({"seen": seen, "weights": model.state_dict()}, folder / f"{own}.pt"))
    dist.destroy_process_group()


def trained(folder: Path, workers: int) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """The losses of the whole batch in each step, and the weights of each rank."""
    folder.mkdir()
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=train_rank, args=(folder, own, workers)) for own in range(workers)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    kept = [torch.load(folder / f"{own}.pt", weights_only=True) for own in range(workers)]
    return torch.tensor([part["seen"] for part in kept], dtype=torch.float64).sum(0), [part["weights"] for part in kept]


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_train_as_one_does_whether_or_not_they_divide_the_batch(tmp_path, workers):
    alone, _ = trained(tmp_path / "alone", 1)
    together, weights = trained(tmp_path / "together", workers)
    assert_close(together, alone, rtol=1e-6, atol=0)
    for others in weights[1:]:
        assert_close(others, weights[0], rtol=0, atol=0)
