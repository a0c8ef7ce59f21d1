"""A folder of runs that was copied to another place, and both copies are used."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.config import to_json
from pipeline.files import sha256_of
from tests.machines.verbs import HERE, ROOT, environment, refuse_failure, start, verb
from tests.runs import EVERYTHING, FinishedRun

pytestmark = [pytest.mark.machines, pytest.mark.slow, pytest.mark.ray]

EVERY_SEGMENT = f"inference.panoptic={json.dumps(to_json(EVERYTHING))}"


def test_a_folder_of_runs_that_was_copied_and_both_are_used(finished_run: FinishedRun, tmp_path):
    """Each copy finds all that is finished, verifies, scores and predicts by itself, and leaves the other alone."""
    first = tmp_path / "first" / "runs"
    finished_run.copy(first / "run")
    shutil.copy(finished_run.recipe.run_folder.parent / "tracking.db", first)
    shutil.copytree(finished_run.recipe.run_folder.parent / "artifacts", first / "artifacts")
    use(first, "evaluate")
    second = tmp_path / "second place" / "renamed"
    shutil.copytree(first, second)
    before = files(first)
    use(second, "make_shards", "train_stage_one", "cache_queries", "train_stage_two", "verify_shards", "verify_cache",
        "inspect_cache", "evaluate", "report", "sync_tracking")
    assert files(first) == before
    before = files(second)
    use(first, "train_stage_two", "verify_cache", "evaluate")
    assert files(second) == before
    for runs in (first, second):
        client = MlflowClient(f"sqlite:///{runs / 'tracking.db'}")
        [experiment] = [item for item in client.search_experiments() if item.name != "Default"]
        found = client.search_runs([experiment.experiment_id])
        assert {run.info.artifact_uri.startswith((runs / "artifacts").as_uri()) for run in found} == {True}
        assert len([run for run in found if run.data.tags.get("verb", "").startswith("evaluate")]) >= 2


def test_a_run_that_is_renamed_while_it_trains_goes_on_under_its_new_name(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    refuse_failure(start(verb("make_shards", HERE, f"folder={old}")))
    line = verb("train_stage_one", HERE, f"folder={old}", "stage_one.fit.steps=100")
    with subprocess.Popen(["bash", "-c", line], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as training:
        while not list(old.glob("stage_one/checkpoints/*/state.json")):
            assert training.poll() is None
            time.sleep(0.1)
        old.rename(new)
        errors = training.communicate(timeout=120)[1]
    assert training.returncode == 2
    assert f"{old} was moved, renamed or removed while the verb ran" in errors
    assert "Traceback" not in errors
    assert not old.exists()
    result = start(verb("train_stage_one", HERE, f"folder={new}", "stage_one.fit.steps=100"))
    refuse_failure(result)
    assert "step 00002/100" not in result.stdout + result.stderr      # it resumed


def files(folder: Path) -> dict[str, str]:
    """The digest of every file, without those that SQLite and locks touch when they are only read."""
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*"))
            if path.is_file() and ".lock" not in path.name}


def use(runs: Path, *names: str) -> None:
    for name in names:
        result = start(verb(name, HERE, f"folder={runs / 'run'}", EVERY_SEGMENT))
        refuse_failure(result)
        assert "error" not in result.stderr.lower(), result.stderr
