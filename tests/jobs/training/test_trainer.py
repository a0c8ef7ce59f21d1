"""The checks before training starts, and the search for the error that ended its workers."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from ray.train import WorkerGroupError
from torch import nn

from jobs.cluster import ClusterConfig
from jobs.recipes import find_recipe
from jobs.train_stage_one import build_stage
from jobs.training.loop import FitConfig
from jobs.training.on_cluster import _user_error, check_resources
from jobs.training.record import Record
from jobs.training.trainer import Stage, TrainingJob, _built
from pipeline.errors import BadInput


def test_a_job_can_be_sent_to_workers():
    job = TrainingJob(build=partial(build_stage, find_recipe("tiny")), folder=Path("/runs/tiny/stage_one"),
                      cluster=ClusterConfig(), fit=FitConfig(steps=3), record=Record(Path("/runs/tiny/tracking/1")))
    copy = pickle.loads(pickle.dumps(job))
    assert (copy.build.func, copy.build.args) == (build_stage, (find_recipe("tiny"),))
    assert replace(copy, build=job.build) == job


@pytest.mark.ray
def test_workers_that_do_not_fit_on_the_cluster_are_refused(cluster):
    check_resources(ClusterConfig(workers=2))
    with pytest.raises(ValueError, match=r"3 workers with 1 CPUs each need 3 CPUs, the cluster has 2"):
        check_resources(ClusterConfig(workers=3))
    check_resources(ClusterConfig(workers=64, gpus_per_worker=1))       # the cluster may grow


def test_a_users_mistake_is_found_among_the_errors_of_the_workers():
    mistake = BadInput("corrupt-image", "cut off.", video="v")
    assert _user_error(WorkerGroupError("text", {0: RuntimeError("connection closed"), 1: mistake})) is mistake
    assert _user_error(WorkerGroupError("text", {0: RuntimeError("connection closed")})) is None


def test_a_stage_trains_in_training_mode_except_for_norms_that_keep_their_statistics_and_frozen_parts():
    """A new module is in training mode without being told, and then batch norms that should not would follow the batch.
    """
    recipe = find_recipe("tiny")
    stage = recipe.stage_one
    backbone = replace(stage.segmenter.backbone, frozen_statistics=True)
    model = replace(stage.segmenter, backbone=backbone).build()
    optimizer = replace(stage.optimizer, frozen=("pixel_decoder.",))
    trained = Stage(model=model, losses_of=None, batches=None, optimizer=optimizer, fit=stage.fit, batch_size=1)
    built = _built(lambda: trained, torch.device("cpu")).model
    norms = [module for module in built.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert not built.pixel_decoder.training
    assert all(part.training for part in (built, built.backbone, built.query_decoder))


def test_batches_that_the_workers_cannot_share_are_refused_by_the_recipe():
    from tests.runs import tiny_run

    recipe = tiny_run("unused")
    with pytest.raises(ValueError, match=r"stage_one\.input\.batch_size=4 is shared by 3 workers.*Set it to 3"):
        replace(recipe, cluster=replace(recipe.cluster, workers=3))
