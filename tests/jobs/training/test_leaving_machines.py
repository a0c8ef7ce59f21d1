"""A machine that is taken back after notice costs a training at most one step, and fewer workers go on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.jobs.training.draining import DRAINED_AFTER, FIT


@pytest.mark.ray
@pytest.mark.storm
def test_a_drained_node_costs_at_most_one_step_and_no_failure(tmp_path):
    """No checkpoint is due before the last step, and `max_failures` is 0."""
    ended = subprocess.run([sys.executable, "-m", "tests.jobs.training.draining", str(tmp_path)], check=False,
                           capture_output=True, text=True, timeout=300,
                           env={**os.environ, "HOME": str(tmp_path), "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5"})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    begun = [tuple(map(int, line.split())) for line in (tmp_path / "steps").read_text().splitlines()]
    together = [step for world, step in begun if world == 2]
    alone = [step for world, step in begun if world == 1]
    assert together == list(range(len(together)))
    assert len(together) > DRAINED_AFTER
    assert alone == list(range(alone[0], FIT.steps))
    assert together[-1] <= alone[0] <= together[-1] + 1
