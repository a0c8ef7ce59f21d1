"""The checks before training starts, and the search for the error that ended its workers."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from ray.train import ControllerError, ScalingConfig, WorkerGroupError
from safetensors.torch import load_file
from torch import nn

from jobs.cluster import ClusterConfig
from jobs.recipes import find_recipe
from jobs.train_stage_one import build_stage
from jobs.training import on_cluster
from jobs.training.checkpoint_folders import RAY_CHECKPOINTS, checkpoints
from jobs.training.identity import DIVERGED
from jobs.training.loop import FitConfig, NotFinite
from jobs.training.on_cluster import _returned, _user_error, _worker, check_resources
from jobs.training.optimizer import OptimizerConfig
from jobs.training.record import Record
from jobs.training.trainer import Stage, TrainingJob, _built, _train, train
from jobs.training.validation import Validation
from pipeline.errors import BadInput, Mismatch
from tests.jobs.training.ranks import Rank


def test_a_job_can_be_sent_to_workers():
    job = TrainingJob(build=partial(build_stage, find_recipe("tiny")), folder=Path("/runs/tiny/stage_one"),
                      cluster=ClusterConfig(), fit=FitConfig(steps=3), record=Record(Path("/runs/tiny/tracking/1")))
    copy = pickle.loads(pickle.dumps(job))
    assert (copy.build.func, copy.build.args) == (build_stage, (find_recipe("tiny"),))
    assert replace(copy, build=job.build) == job


@pytest.mark.ray
def test_workers_that_do_not_fit_on_the_cluster_are_refused(cluster):
    check_resources(ClusterConfig(workers=2))
    with pytest.raises(ValueError, match=r"3 workers with 1 CPUs each do not fit, the cluster has room for 2"):
        check_resources(ClusterConfig(workers=3))
    with pytest.raises(ValueError, match=r"2 workers with 1 CPUs and 1 GPUs each do not fit"):
        check_resources(ClusterConfig(workers=2, gpus_per_worker=1))


def test_a_users_mistake_is_found_among_the_errors_of_the_workers():
    mistake = BadInput("corrupt-image", "cut off.", video="v")
    assert _user_error(WorkerGroupError("text", {0: RuntimeError("connection closed"), 1: mistake})) is mistake
    assert _user_error(WorkerGroupError("text", {0: RuntimeError("connection closed")})) is None


def test_an_error_of_a_store_ends_training_where_nothing_else_explains_the_end(monkeypatch):
    """Ray has started the workers again by then, as often as it may."""
    gone = ConnectionError("s3://bucket/run/shards cannot be used: it does not answer")

    def ended(*errors: Exception) -> None:
        def fit() -> None:
            raise WorkerGroupError("text", dict(enumerate(errors)))

        _returned(SimpleNamespace(fit=fit, scaling_config=ScalingConfig(num_workers=2)))

    monkeypatch.setattr(on_cluster, "living_machines", set)
    with pytest.raises(ConnectionError, match="s3://bucket/run/shards cannot be used"):
        ended(RuntimeError("connection closed"), gone)
    with pytest.raises(ValueError, match="a mistake"):
        ended(gone, ValueError("a mistake"))


def test_a_host_that_does_not_see_the_folder_of_the_run_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(on_cluster, "NETWORK_SECONDS", 0.1)
    run = tmp_path / "run"
    job = TrainingJob(build=partial(build_stage, find_recipe("tiny")), folder=run / "stage_one",
                      cluster=ClusterConfig(), fit=FitConfig(), record=Record(run / "tracking" / "1"))
    with pytest.raises(FileNotFoundError, match=rf"the host {socket.gethostname()} does not see {run}, "):
        _worker(job, lambda *_: None, {})
    job.record.folder.mkdir(parents=True)
    assert _worker(job, lambda *_: None, {}) is None


def test_an_error_of_rays_controller_is_told_like_that_of_a_worker():
    full = OSError(28, "No space left on device")
    assert _user_error(ControllerError(full)) is full
    assert _user_error(ControllerError(RuntimeError("lost"))) is None


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


def squared(output: torch.Tensor) -> torch.Tensor:
    return output.square().mean()


def one_weight(tmp_path, *, steps: int, fail: type[Exception] | None = None, rate: float = 0.1,
               loss: Callable[[torch.Tensor], torch.Tensor] = squared, checkpoint_every: int = 1) -> TrainingJob:
    """A training of one weight in this process. fail: raised as its batches are opened."""
    fit = FitConfig(steps=steps, checkpoint_every=checkpoint_every)

    def batches(*_):
        if fail is not None:
            raise fail("samples do not fill a batch")
        return iter(lambda: SimpleNamespace(videos=("v",), to=lambda _: SimpleNamespace(videos=("v",))), None)

    def build() -> Stage:
        model = nn.Linear(1, 1)
        return Stage(model=model, losses_of=lambda wrapped, _: {"loss": loss(wrapped(torch.ones(1, 1)))},
                     batches=batches, optimizer=OptimizerConfig(lr=rate, warmup_steps=0), fit=fit, batch_size=1)

    return TrainingJob(build=build, folder=tmp_path / "stage_one", cluster=ClusterConfig(in_process=True), fit=fit,
                       record=None)


def test_settings_with_which_training_cannot_begin_claim_no_folder(tmp_path):
    with pytest.raises(ValueError, match="do not fill a batch"):
        train(one_weight(tmp_path, steps=2, fail=ValueError), identity={"steps": 2})
    train(one_weight(tmp_path, steps=3), identity={"steps": 3})
    with pytest.raises(ValueError, match="do not fill a batch"):
        train(one_weight(tmp_path, steps=3, fail=ValueError), identity={"steps": 3})
    with pytest.raises(Mismatch):                           # its checkpoints are worth keeping
        train(one_weight(tmp_path, steps=4), identity={"steps": 4})


def test_the_scale_of_losses_is_kept_in_checkpoints_and_an_earlier_one_has_none(tmp_path, monkeypatch):
    scalers = []

    def scaler(*_) -> torch.amp.GradScaler:
        scalers.append(torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2))
        return scalers[-1]

    def kept() -> dict:
        states = [json.loads(path.read_text()) for path in (tmp_path / "stage_one").rglob("state.json")]
        return max(states, key=lambda state: state["step"])

    train(one_weight(tmp_path, steps=1), identity={})       # of a version that kept none
    assert "scaler" not in kept()
    monkeypatch.setattr("jobs.training.trainer.loss_scaler", scaler)
    train(one_weight(tmp_path, steps=4), identity={})       # three steps on
    assert kept()["scaler"] == scalers[-1].state_dict()
    assert scalers[-1].get_scale() == 16.0
    train(one_weight(tmp_path, steps=5), identity={})       # the fourth step of this scaler doubles it again
    assert scalers[-1].get_scale() == 32.0


def test_a_run_that_diverged_may_be_changed_until_it_is_finished(tmp_path):
    hot = one_weight(tmp_path, steps=4, rate=1e38)
    with pytest.raises(NotFinite):
        train(hot, identity={"rate": 1e38})
    with pytest.raises(KeyboardInterrupt):                  # started again, and stopped before it diverges again
        train(one_weight(tmp_path, steps=4, fail=KeyboardInterrupt), identity={"rate": 1e38})
    train(one_weight(tmp_path, steps=4), identity={"rate": 0.1})
    with pytest.raises(Mismatch):
        train(hot, identity={"rate": 1e38})


@pytest.mark.long
@pytest.mark.ray
def test_weights_that_are_infinite_after_the_last_step_end_a_training_on_ray(cluster, tmp_path):
    """Every loss was finite, and so was the step before. A lower rate may follow in the same folder."""
    def on_ray(**settings) -> TrainingJob:
        return replace(one_weight(tmp_path, steps=2, **settings), cluster=ClusterConfig(workers=2))

    hot = on_ray(rate=3e37, loss=lambda output: 1e-3 * output.mean())
    with pytest.raises(NotFinite, match=r"1 weights are not finite after step 2, first weight") as raised:
        train(hot, identity={"rate": 3e37})
    advice, last = raised.value.__notes__
    assert advice.startswith("Lower stage_one.optimizer.lr,")
    kept = tmp_path / "stage_one" / RAY_CHECKPOINTS / "step-0000001"
    assert last == f"The last finite checkpoint is {kept}."
    assert all(value.isfinite().all() for value in load_file(kept / "model.safetensors").values())
    assert all(value.isfinite().all() for value in train(on_ray(), identity={"rate": 0.1}).values())


def overflowing(job: TrainingJob, broken: int) -> TrainingJob:
    """The same job, but the statistics of one rank overflow while its loss is finite."""
    def build() -> Stage:
        stage = job.build()
        stage.model.register_buffer("seen", torch.zeros(1))

        def losses_of(wrapped: nn.Module, batch: SimpleNamespace) -> dict[str, torch.Tensor]:
            losses = stage.losses_of(wrapped, batch)
            wrapped.module.seen.fill_(float("inf") if dist.get_rank() == broken else 1.0)
            return losses
        return replace(stage, losses_of=losses_of)

    return replace(job, build=build)


def train_rank(job: TrainingJob, own: int, kind: type[Rank]) -> None:
    """Train as one of two ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{job.folder}/meet", rank=own, world_size=2)
    error = _train(job, kind(job.folder, 2, torch.device("cpu")))
    (job.folder / f"ended_{own}").write_text("" if error is None else f"{type(error).__name__} {error}")


def ends_of_two_ranks(job: TrainingJob, kind: type[Rank] = Rank) -> list[str]:
    """What the two ranks of a training return."""
    job.folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=train_rank, args=(job, own, kind), daemon=True) for own in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=100)
    (job.folder / "meet").unlink()
    return [(job.folder / f"ended_{own}").read_text() for own in range(2)]


@pytest.mark.parametrize("broken", [0, 1])
def test_statistics_that_overflow_on_one_rank_leave_no_other_rank_waiting(tmp_path, broken):
    """What is saved comes from rank 0, and the next step takes its statistics on every rank."""
    job = overflowing(one_weight(tmp_path, steps=2), broken)
    ends = ends_of_two_ranks(job)
    assert ends[0] == ends[1]
    if broken == 0:
        assert "1 weights are not finite after step 1, first seen" in ends[0]
        assert not checkpoints(job.folder)
    else:
        assert ends[0] == ""
        assert [load_file(path / "model.safetensors")["seen"].item() for path in checkpoints(job.folder)] == [1.0, 1.0]


class LeavingRank(Rank):
    """A rank whose machine will be gone if it is the second."""

    def is_leaving(self) -> bool:
        return dist.get_rank() == 1


def test_all_ranks_stop_after_a_saved_step_where_the_machine_of_one_will_be_gone(tmp_path):
    """No checkpoint is due before the last step; the step at which training ends is not one to go on from."""
    job = one_weight(tmp_path, steps=3, checkpoint_every=3)
    for step in (1, 2):
        assert ends_of_two_ranks(job, LeavingRank) == ["Leaving ", "Leaving "]
        assert checkpoints(job.folder)[-1].name == f"step-{step:07d}"
    assert ends_of_two_ranks(job, LeavingRank) == ["", ""]


@pytest.mark.ray
@pytest.mark.long
def test_statistics_that_overflow_on_the_second_rank_do_not_end_a_training_on_ray(cluster, tmp_path):
    job = overflowing(replace(one_weight(tmp_path, steps=2), cluster=ClusterConfig(workers=2)), broken=1)
    assert train(job, identity={})["seen"].item() == 1.0


def test_weights_that_are_not_finite_are_not_scored(tmp_path):
    """No metric takes what they predict, and the way out is that of a training that diverged."""
    def score(_) -> dict[str, float]:
        raise ValueError("matrix contains invalid numeric entries")

    hot = one_weight(tmp_path, steps=3, rate=3e37, loss=lambda output: 1e-3 * output.mean())
    scored = Validation(every=2, score=score, number="score")
    job = replace(hot, build=lambda: replace(hot.build(), fit=replace(hot.fit, checkpoint_every=3), validation=scored))
    with pytest.raises(NotFinite, match="after step 2"):
        train(job, identity={})
    assert (job.folder / DIVERGED).is_file()


def test_batches_that_the_workers_cannot_share_are_refused_by_the_recipe():
    from tests.runs import tiny_run

    recipe = tiny_run("unused")
    with pytest.raises(ValueError, match=r"stage_one\.input\.batch_size=4 is shared by 5 workers.*to at least 5"):
        replace(recipe, cluster=replace(recipe.cluster, workers=5))
