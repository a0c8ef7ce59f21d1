"""A machine that is taken back after notice costs a training no step, and fewer workers go on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.jobs.training.draining import DRAINED_AFTER, FIT


@pytest.mark.ray
@pytest.mark.long
def test_a_drained_node_costs_no_step_and_no_failure(tmp_path):
    """No checkpoint is due before the last step, and `max_failures` is 0."""
    ended = subprocess.run([sys.executable, "-m", "tests.jobs.training.draining", str(tmp_path)], check=False,
                           capture_output=True, text=True, timeout=300,
                           env={**os.environ, "HOME": str(tmp_path)})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    begun = [tuple(map(int, line.split())) for line in (tmp_path / "steps").read_text().splitlines()]
    together = [step for world, step in begun if world == 2]
    alone = [step for world, step in begun if world == 1]
    assert together == list(range(len(together)))
    assert len(together) > DRAINED_AFTER
    assert alone == list(range(len(together), FIT.steps))
