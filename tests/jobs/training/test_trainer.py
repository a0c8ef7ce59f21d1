"""What decides whether a run may start, and whose fault it is when its workers end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ray.train import WorkerGroupError

from jobs.recipes.schema import ClusterConfig
from jobs.training.trainer import _user_error, check_resources, refuse_other_run
from pipeline.errors import BadInput, Mismatch


def test_the_first_run_in_a_folder_says_what_it_is_and_the_same_may_go_on(tmp_path):
    identity = {"stage": {"fit": {"steps": 6, "windows": (1, 2)}}, "shards": "abc"}
    for _ in range(2):
        refuse_other_run(tmp_path / "identity.json", identity)
    assert json.loads((tmp_path / "identity.json").read_text())["shards"] == "abc"


def test_another_run_is_refused_with_every_differing_field_and_both_values(tmp_path):
    refuse_other_run(tmp_path / "identity.json", {"stage": {"lr": 0.1, "steps": 6}, "shards": "abc"})
    said = r"shards: 'abc' != 'def'; stage\.lr: 0\.1 != 0\.2\. Give this run another folder"
    with pytest.raises(Mismatch, match=said):
        refuse_other_run(tmp_path / "identity.json", {"stage": {"lr": 0.2, "steps": 6}, "shards": "def"})


@pytest.mark.ray
def test_workers_that_do_not_fit_are_refused_instead_of_waited_for(cluster):
    check_resources(ClusterConfig(workers=2))
    with pytest.raises(ValueError, match=r"3 workers with 1 CPUs each need 3 CPUs, the cluster has 2"):
        check_resources(ClusterConfig(workers=3))
    check_resources(ClusterConfig(workers=64, gpus_per_worker=1))       # may be scaled up


def test_a_users_mistake_is_found_among_the_errors_of_the_workers():
    mistake = BadInput("corrupt-image", "cut off.", video="v")
    assert _user_error(WorkerGroupError("text", {0: RuntimeError("connection closed"), 1: mistake})) is mistake
    assert _user_error(WorkerGroupError("text", {0: RuntimeError("connection closed")})) is None


def test_batches_that_the_workers_cannot_share_are_refused_by_the_recipe():
    from tests.roads import tiny_road

    recipe = tiny_road("unused")
    with pytest.raises(ValueError, match=r"stage_one\.input\.batch_size=4 is shared by 3 workers.*Set it to 3"):
        replace(recipe, cluster=replace(recipe.cluster, workers=3))
