"""A cluster whose autoscaler runs is judged by the nodes that it may add, and a verb that needs them waits for them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing

import pytest

from jobs import make_shards
from jobs.models import load_weights
from jobs.recipes.schema import Recipe
from tests.conftest import ROOT
from tests.ray_head import Head
from tests.runs import here, tiny_run

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]

LARGER = {"larger": {"resources": {"CPU": 2, "object_store_memory": 80 * 2**20}, "node_config": {}, "min_workers": 0,
                     "max_workers": 1}}


@pytest.fixture
def sharded(tmp_path) -> Recipe:
    """A run with shards."""
    recipe = here(tiny_run(tmp_path / "run"))
    make_shards.main(recipe)
    return recipe


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """One CPU, and a node with two that may come."""
    with closing(Head(tmp_path_factory.mktemp("head"), cpus=1, grows=LARGER)) as head:
        head.wait_until_ready()
        yield head


def joined(head: Head, recipe: Recipe, *changes: str) -> subprocess.CompletedProcess:
    """A training that joins the cluster. (The nodes of a job would share the copy of its code, and one removes it.)"""
    settings = [word for change in (f"folder={recipe.run_folder}", "stage_one.fit.steps=1", "cluster.workers=1",
                                    *changes) for word in ("--set", change)]
    return subprocess.run([sys.executable, "-m", "jobs.train_stage_one", "--recipe", "tiny", *settings], cwd=ROOT,
                          env=os.environ | head.joining, capture_output=True, text=True, timeout=600, check=False)


def test_a_training_that_only_a_larger_node_can_hold_waits_until_it_is_added(head, sharded):
    done = joined(head, sharded, "cluster.cpus_per_worker=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert load_weights(sharded.run_folder / "stage_one" / "model")


def test_a_gpu_that_no_node_type_has_is_refused_before_anything_is_done(head, tmp_path):
    recipe = tiny_run(tmp_path / "run")
    done = joined(head, recipe, "cluster.gpus_per_worker=1")
    assert done.returncode == 2, done.stdout + done.stderr
    assert ("the cluster: 1 workers with 1 CPUs and 1 GPUs each do not fit, the cluster has room for 0: it can have "
            "1 x ray.head.default with 1 CPUs, 1 x larger with 2 CPUs. Lower cluster.workers, ") in done.stderr
    assert "or raise max_workers of a node type." in done.stderr
    assert not recipe.run_folder.exists()
