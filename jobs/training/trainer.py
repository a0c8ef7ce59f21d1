"""Ray Train around the loop both stages share: workers, DDP, resume, and the finished weights at the end.

A stage is a function that builds everything from the recipe inside a worker; this file knows nothing of what it trains.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer, get_device, prepare_model
from safetensors.torch import load_file
from torch import Tensor, nn

from jobs.config import differences
from jobs.recipes.schema import ClusterConfig, Recipe
from jobs.training.checkpoint import load_checkpoint, save_checkpoint
from jobs.training.loop import FitConfig, Losses, NonFiniteLoss, fit, rank, world
from jobs.training.optimizer import OptimizerConfig, build_optimizer, parameter_groups
from jobs.training.progress import Progress, say
from jobs.training.tracking import RunHandle, Tracker
from pipeline.errors import Mismatch
from pipeline.files import atomic_write


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage brings to the loop, built inside each worker."""

    model: nn.Module                                            # on the CPU; only parameters that need grad are trained
    losses_of: Callable[[nn.Module, Any], Losses]               # (wrapped model, batch on the device) -> weighted terms
    batches: Callable[[int, int, int], Iterator[Any]]           # (rank, world, consumed samples) -> endless batches
    optimizer: OptimizerConfig
    fit: FitConfig
    batch_size: int                                             # samples per batch, over all workers


def train(build: Callable[[Recipe], Stage], recipe: Recipe, *, name: str, identity: dict[str, Any],
          fit_config: FitConfig, handle: RunHandle) -> dict[str, Tensor]:
    """Train a stage on the cluster and return its weights.

    Running it again continues from the last checkpoint. identity: everything that decides the result; a run that was
    started with another one is not continued (Mismatch, naming the fields).
    Raises NonFiniteLoss naming term, step and videos, what a worker found wrong in data or settings, and Ray's
    WorkerGroupError when workers died more often than `cluster.max_failures`.
    """
    folder = recipe.road / name
    folder.mkdir(parents=True, exist_ok=True)
    refuse_other_run(folder / "identity.json", identity)
    check_resources(recipe.cluster)
    cluster = recipe.cluster
    resources = {"CPU": cluster.cpus_per_worker} | ({"GPU": cluster.gpus_per_worker} if cluster.gpus_per_worker else {})
    trainer = TorchTrainer(
        _worker, train_loop_config={"build": build, "recipe": recipe, "seed": fit_config.seed, "handle": handle,
                                    "folder": str(folder)},
        scaling_config=ScalingConfig(num_workers=cluster.workers, resources_per_worker=resources,
                                     use_gpu=cluster.gpus_per_worker > 0),
        torch_config=TorchConfig(backend="nccl" if cluster.gpus_per_worker else "gloo"),
        run_config=RunConfig(name="ray_train", storage_path=str(folder),
                             failure_config=FailureConfig(max_failures=cluster.max_failures),
                             checkpoint_config=CheckpointConfig(num_to_keep=fit_config.keep_checkpoints)))
    try:
        result = trainer.fit()
    except WorkerGroupError as error:
        raise _user_error(error) or error from None
    if isinstance(result.return_value, Exception):
        raise result.return_value
    with result.checkpoint.as_directory() as last:
        state = json.loads((Path(last) / "state.json").read_text())
        assert state["step"] == fit_config.steps, f"the last checkpoint has step {state['step']}"
        return load_file(Path(last) / "model.safetensors")


def refuse_other_run(path: Path, identity: dict[str, Any]) -> None:
    """Remember what this run is; raise Mismatch when the folder already holds another one."""
    if not path.is_file():
        atomic_write(path, json.dumps(identity, indent=1, sort_keys=True).encode())
        return
    changed = differences(json.loads(path.read_text()), json.loads(json.dumps(identity)))
    if changed:
        raise Mismatch(f"{path.parent} holds a run with other settings (there != here): {'; '.join(changed[:8])}. "
                       "Give this run another folder (--set folder=...), or remove that one.")


def check_resources(cluster: ClusterConfig) -> None:
    """Raise ValueError when the cluster cannot hold the workers: Ray would wait for ever without a word."""
    total = ray.cluster_resources()
    needed = cluster.workers * cluster.cpus_per_worker
    autoscales = cluster.gpus_per_worker > 0     # workers may still be scaled up from zero
    if needed > total.get("CPU", 0) and not autoscales:
        raise ValueError(f"{cluster.workers} workers with {cluster.cpus_per_worker} CPUs each need {needed} CPUs, the "
                         f"cluster has {total.get('CPU', 0)}. Set cluster.workers or cluster.cpus_per_worker lower.")


def _user_error(failure: WorkerGroupError) -> Exception | None:
    """What a worker found wrong in data or settings, where that is why the workers ended."""
    errors = (getattr(error, "_base_exc", error) for error in failure.worker_failures.values())    # Ray's wrapper
    return next((error for error in errors if isinstance(error, (ValueError, FileNotFoundError))), None)


def _worker(job: dict[str, Any]) -> Exception | None:
    """One training process. Returns the errors a retry would only meet again, on all ranks alike."""
    torch.set_num_threads(max(int(job["recipe"].cluster.cpus_per_worker), 1))
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if (device := get_device()).type == "cuda":
        torch.cuda.set_device(device)
    torch.manual_seed(job["seed"])      # the same initial weights on every rank
    stage, error = None, None
    try:
        stage = job["build"](job["recipe"])
        parameter_groups(stage.model, stage.optimizer)      # refuses multipliers that match nothing
    except (ValueError, FileNotFoundError) as found:
        error = found
    if (error := _of_any_rank(error)) is not None:
        return error
    try:
        _fit(stage, job)
    except NonFiniteLoss as error:
        return error
    return None


def _of_any_rank(error: Exception | None) -> Exception | None:
    """The first rank's error, on all ranks: one that stopped alone would leave the others waiting for it."""
    errors = [error]
    if world() > 1:
        errors = [None] * world()
        dist.all_gather_object(errors, error)
    return next((found for found in errors if found is not None), None)


def _fit(stage: Stage, job: dict[str, Any]) -> None:
    model, device = stage.model, get_device()
    if device.type == "cuda" and world() > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    elif world() > 1 and rank() == 0:
        say("batch norm: plain on CPU ranks, each over its own part of the batch")
    wrapped = prepare_model(model, parallel_strategy_kwargs={"forward_sync_buffers": False})
    optimizer = build_optimizer(model, stage.optimizer)
    start = _resume(model, optimizer)
    report = _Reporter(stage, job, start) if rank() == 0 else None
    per_step = stage.batch_size * stage.fit.accumulate

    def save(step: int) -> None:
        if report is None:
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), model=model, optimizer=optimizer,
                            state={"step": step, "consumed_samples": step * per_step, "seed": stage.fit.seed,
                                   "world": world()})
            ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(folder),
                             checkpoint_dir_name=f"step-{step:07d}")
        report.tracker.flush()

    batches = (batch.to(device) for batch in stage.batches(rank(), world(), start * per_step))
    fit(wrapped, batches, lambda batch: stage.losses_of(wrapped, batch), optimizer=optimizer, rates=stage.optimizer,
        config=stage.fit, start_step=start, log=report or (lambda _: None), save=save)
    if report is not None:
        report.tracker.flush(last=True)


def _resume(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Steps already done: those of the last checkpoint all ranks have reported, 0 without any."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        state = load_checkpoint(Path(folder), model=model, optimizer=optimizer)
    if rank() == 0:
        say(f"resumed at step {state['step']}")
    return state["step"]


class _Reporter:
    """Rank 0: status line, JSON lines and the tracker, which never sees a step twice."""

    def __init__(self, stage: Stage, job: dict[str, Any], start: int) -> None:
        self.progress = Progress(Path(job["folder"]) / "progress.jsonl", stage.fit.steps, world())
        self.tracker = Tracker(job["handle"])
        self.recorded = self.tracker.last_step()
        if start:
            self.tracker.tags({"resumed_from_step": start})
        trained = sum(p.numel() for p in stage.model.parameters() if p.requires_grad)
        say(f"training {trained / 1e6:.2f} M parameters for {stage.fit.steps} steps from step {start}: "
            f"{stage.batch_size} samples a batch on {world()} workers, {stage.fit.accumulate} batches a step")
        if stage.fit.precision == "fp16" and get_device().type == "cpu":
            say("fp16 is for GPUs: training in fp32")
        self.tracker.parameters({"trainable_parameters": trained, "workers": world(), **_plain(stage)})

    def __call__(self, report) -> None:
        numbers = self.progress(report)
        if report.step > self.recorded:
            self.tracker.numbers(report.step, numbers)


def _plain(stage: Stage) -> dict[str, Any]:
    settings = {"optimizer": stage.optimizer, "fit": stage.fit}
    return {f"{part}.{name}": getattr(config, name) for part, config in settings.items()
            for name in type(config).__dataclass_fields__} | {"batch_size": stage.batch_size}
