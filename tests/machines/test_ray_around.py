"""Training on Ray where a cluster of somebody else runs, the home folder is read-only and TMPDIR is long."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


@pytest.mark.usefixtures("cluster")
def test_a_verb_starts_its_own_ray_beside_another_with_no_home_and_a_long_temporary_folder(finished_run, tmp_path):
    recipe = finished_run.recipe
    long = tmp_path / ("x" * 90)
    long.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "jobs.train_stage_two", "--recipe", recipe.name,
               "--set", f"folder={tmp_path / 'run'}", "--set", f"stage_one_from={recipe.run_folder}",
               "--set", f"inference.panoptic={json.dumps(as_json(recipe))}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False,
                            env=environment | {"HOME": "/proc/nowhere", "TMPDIR": str(long), "OMP_NUM_THREADS": "1"})
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    assert "multiple active Ray instances" not in said
    assert (tmp_path / "run" / "stage_two" / "model" / "model.json").is_file()


def as_json(recipe) -> dict:
    from jobs.config import to_json
    return to_json(recipe.inference.panoptic)
