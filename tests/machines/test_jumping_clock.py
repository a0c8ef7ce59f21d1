"""A training ends with the same weights when the clock of its processes jumps by an hour."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs import train_stage_one
from jobs.training.checkpoint_folders import OWN_CHECKPOINTS
from pipeline.files import sha256_of
from tests.machines.verbs import HERE, ROOT, refuse_failure, start, verb
from tests.runs import FinishedRun, here, tiny_run

pytestmark = [pytest.mark.machines, pytest.mark.slow, pytest.mark.ray]

# Every Python imports it as it starts. The clock jumps when the first checkpoint is there.
SHIM = """
import os, time

def jumping(clock, unit):
    def now():
        return clock() + (int(os.environ["CLOCK_JUMP"]) * unit if os.path.exists(os.environ["CLOCK_JUMPS_AT"]) else 0)
    return now

time.time = jumping(time.time, 1)
time.time_ns = jumping(time.time_ns, 10**9)
"""


def copy_shards(finished_run: FinishedRun, run: Path) -> Path:
    shutil.copytree(finished_run.recipe.run_folder / "shards", run / "shards")
    return run


@pytest.fixture(scope="module")
def undisturbed(finished_run: FinishedRun, tmp_path_factory) -> str:
    """The digest of the weights of one process under a clock that does not jump."""
    recipe = here(tiny_run(copy_shards(finished_run, tmp_path_factory.mktemp("undisturbed") / "run")))
    train_stage_one.main(recipe)
    return sha256_of(recipe.segmenter_folder / "model.safetensors")


@pytest.mark.parametrize("seconds", [3600, -3600], ids=["forward", "back"])
def test_a_clock_that_jumps_changes_neither_weights_nor_steps(finished_run, undisturbed, tmp_path, seconds):
    (tmp_path / "sitecustomize.py").write_text(SHIM)
    run = copy_shards(finished_run, tmp_path / "runs" / "run")
    line = verb("train_stage_one", HERE, f"folder={run}", "stage_one.fit.checkpoint_every=2",
                "stage_one.fit.keep_checkpoints=3", "stage_one.fit.log_every=1")
    result = start(line, PYTHONPATH=f"{tmp_path}:{ROOT}", CLOCK_JUMP=str(seconds),
                   CLOCK_JUMPS_AT=str(run / "stage_one" / OWN_CHECKPOINTS / "step-0000002"))
    refuse_failure(result)
    assert sha256_of(run / "stage_one" / "model" / "model.safetensors") == undisturbed
    refuse_disorder(run, seconds)


def refuse_disorder(run: Path, seconds: int) -> None:
    """Raise AssertionError unless MLflow has every step once, and a finished run that ended after it began."""
    client = MlflowClient(f"sqlite:///{run.parent / 'tracking.db'}")
    experiment = client.get_experiment_by_name("maxtron-on-ray").experiment_id
    [training] = [item for item in client.search_runs([experiment]) if item.data.tags.get("verb") == "train_stage_one"]
    losses = sorted(client.get_metric_history(training.info.run_id, "loss"), key=lambda metric: metric.step)
    assert [metric.step for metric in losses] == [1, 2, 3, 4, 5, 6]
    jumps = [(after.timestamp - before.timestamp) / 1000 for before, after in pairwise(losses)]
    assert max(map(abs, jumps)) > 0.9 * abs(seconds)        # the clock did jump
    assert training.info.status == "FINISHED"
    assert training.info.end_time >= training.info.start_time
