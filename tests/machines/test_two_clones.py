"""Two clones at work at the same time, each on a Ray of its own."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess

import pytest

from jobs.config import to_json
from pipeline.files import sha256_of
from tests.machines.verbs import copy_of_the_code, environment, verb
from tests.runs import EVERYTHING, FinishedRun

pytestmark = [pytest.mark.machines, pytest.mark.slow, pytest.mark.ray]

EVERY_SEGMENT = f"inference.panoptic={json.dumps(to_json(EVERYTHING))}"


def test_two_clones_that_train_at_the_same_time_end_with_the_weights_of_one_alone(finished_run: FinishedRun, tmp_path):
    expected = sha256_of(finished_run.recipe.head_folder / "model.safetensors")
    processes = {}
    for name in ("one", "two"):
        clone = copy_of_the_code(tmp_path / name)
        run = finished_run.copy(clone / "run").run_folder
        shutil.rmtree(run / "stage_two")
        words = shlex.split(verb("train_stage_two", "folder=run", EVERY_SEGMENT))
        with (clone / "log").open("w") as log:
            processes[clone] = subprocess.Popen(words, cwd=clone, env=environment(), stdout=log, stderr=log)
    codes = [process.wait(timeout=400) for process in processes.values()]
    logs = "\n".join((clone / "log").read_text() for clone in processes)
    assert codes == [0, 0], logs
    assert "Traceback" not in logs
    assert "multiple active Ray instances" not in logs
    assert [sha256_of(clone / "run" / "stage_two" / "model" / "model.safetensors") for clone in processes] == [
        expected, expected]
