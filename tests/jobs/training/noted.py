"""A training that notes what each worker reads and what it adds to the loss, without anything that workers draw."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from jobs import make_shards
from jobs.recipes.schema import Recipe
from jobs.train_stage_one import build_stage
from jobs.training.loop import rank, world
from jobs.training.trainer import Stage
from pipeline.datasets.synthetic import SyntheticConfig
from tests.runs import here, tiny_run

STEPS = 6


class Stopped(Exception):
    """A worker does not go on."""


def noted_run(folder: Path) -> Recipe:
    """The recipe `tiny` with its shards, a checkpoint after every step, and no loss of pixels that a worker draws."""
    recipe = tiny_run(folder, world=SyntheticConfig(videos_train=10, videos_val=1, frames=4, height=64, width=64))
    one = recipe.stage_one
    recipe = replace(recipe, stage_one=replace(one, losses=replace(one.losses, pixel_weight=0.0), fit=replace(
        one.fit, steps=STEPS, checkpoint_every=1)))
    make_shards.main(here(recipe))
    return recipe


def noted_stage(recipe: Recipe, notes: Path, *, stops_at: int | None = None) -> Stage:
    """Stage one with frozen batch norms. notes: folder. stops_at: step in place of which all workers are stopped."""
    stage = build_stage(recipe)

    def batches(rank: int, world: int, consumed: int) -> Iterator[Any]:
        for batch in stage.batches(rank, world, consumed):
            if stops_at is not None and batch.samples[0] // stage.batch_size == stops_at:
                raise Stopped
            yield batch

    def losses_of(wrapped: nn.Module, batch: Any) -> dict[str, Tensor]:
        for module in wrapped.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        losses = stage.losses_of(wrapped, batch)
        part = float(sum(losses.values()).detach()) * len(batch.samples) / stage.batch_size
        with (notes / f"{world()}-{rank()}-{os.getpid()}").open("a") as file:
            file.write(json.dumps({"samples": batch.samples, "loss": part, "world": world()}) + "\n")
        return losses

    return replace(stage, batches=batches, losses_of=losses_of)


def read_notes(notes: Path, *, batch_size: int) -> tuple[list[int], Tensor, list[int]]:
    """All samples in order, the loss of each step, and the number of workers in each step."""
    lines = [json.loads(line) for file in sorted(notes.iterdir()) for line in file.read_text().splitlines()]
    curve = torch.zeros(STEPS, dtype=torch.float64)
    workers = [0] * STEPS
    for line in lines:
        step = line["samples"][0] // batch_size
        curve[step] += line["loss"]
        workers[step] = line["world"]
    return sorted(sample for line in lines for sample in line["samples"]), curve, workers
