"""Any number of workers trains as one worker does that has the whole batch, also where the number changes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing import assert_close

from jobs.cluster import ClusterConfig
from jobs.recipes.schema import Recipe
from jobs.training.checkpoint_folders import checkpoints
from jobs.training.trainer import TrainingJob, _train
from tests.jobs.training.noted import STEPS, Stopped, noted_run, noted_stage, read_notes
from tests.jobs.training.ranks import Rank


def train_rank(recipe: Recipe, folder: Path, own: int, workers: int, until: int) -> None:
    """Train as one of the workers, from the newest checkpoint until a step."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{workers}-{until}", rank=own, world_size=workers)
    build = partial(noted_stage, recipe, folder / "notes", stops_at=until if until < STEPS else None)
    job = TrainingJob(build=build, folder=folder, cluster=ClusterConfig(), fit=recipe.stage_one.fit, record=None)
    try:
        error = _train(job, Rank(folder, recipe.stage_one.fit.keep_checkpoints, torch.device("cpu")))
        assert error is None, error
    except Stopped:
        pass
    dist.destroy_process_group()


def trained(recipe: Recipe, folder: Path, *parts: tuple[int, int]) -> tuple[list[int], Tensor, list[int]]:
    """The notes of a training. parts: numbers of workers, and the step until which they train."""
    (folder / "notes").mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    for workers, until in parts:
        ranks = [context.Process(target=train_rank, args=(recipe, folder, own, workers, until))
                 for own in range(workers)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        assert not any(process.exitcode for process in ranks)
        assert checkpoints(folder)[-1].name.endswith(f"{until}")
    return read_notes(folder / "notes", batch_size=recipe.stage_one.input.batch_size)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    return noted_run(tmp_path_factory.mktemp("run"))


@pytest.mark.slow
def test_four_workers_become_three_and_four_again(recipe, tmp_path):
    """The loss of every step is that of one undisturbed worker, and every sample is read once."""
    _, alone, _ = trained(recipe, tmp_path / "alone", (1, STEPS))
    samples, together, workers = trained(recipe, tmp_path / "together", (4, 2), (3, 4), (4, STEPS))
    assert workers == [4, 4, 3, 3, 4, 4]
    assert samples == list(range(STEPS * recipe.stage_one.input.batch_size))
    assert_close(together, alone, rtol=1e-6, atol=0)


@pytest.mark.ray
@pytest.mark.long
def test_so_it_is_on_ray_when_a_machine_is_taken_back_and_comes_again(recipe, tmp_path):
    _, alone, _ = trained(recipe, tmp_path / "alone", (1, STEPS))
    notes = tmp_path / "notes"
    notes.mkdir()
    ended = subprocess.run([sys.executable, "-m", "tests.jobs.training.resizing", recipe.run_folder, notes],
                           check=False, capture_output=True, text=True, timeout=900,
                           env={**os.environ, "HOME": str(tmp_path)})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    samples, together, workers = read_notes(notes, batch_size=recipe.stage_one.input.batch_size)
    assert workers == [4, 4, 3, 3, 4, 4]
    assert samples == list(range(STEPS * recipe.stage_one.input.batch_size))
    assert_close(together, alone, rtol=1e-6, atol=0)
