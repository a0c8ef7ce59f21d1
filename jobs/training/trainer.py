"""Trains either stage, with Ray Train's workers or in this process, and returns the finished weights.

Each worker builds its `Stage` by a function it is given; this file depends neither on models nor on recipes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from jobs.cluster import ClusterConfig
from jobs.console import say
from jobs.training.average import AVERAGE, WeightAverage
from jobs.training.checkpoint import BEST, load_checkpoint, save_checkpoint, whole_state
from jobs.training.checkpoint_folders import OWN_CHECKPOINTS, RAY_CHECKPOINTS, checkpoints, newest_whole
from jobs.training.freezing import freeze
from jobs.training.identity import DIVERGED, IDENTITY, Identity, claim_folder
from jobs.training.loop import (
    FitConfig,
    Losses,
    NotFinite,
    StepReport,
    fit,
    loss_scaler,
    rank,
    refuse_infinite_weights,
    world,
)
from jobs.training.machine_load import MachineLoad, is_wanted
from jobs.training.optimizer import OptimizerConfig, build_optimizer, parameter_groups
from jobs.training.process import Leaving, SingleProcess, TrainingProcess
from jobs.training.progress import Progress
from jobs.training.record import Record
from jobs.training.tracker import NoTracker, Tracker
from jobs.training.validation import Validation, Validator
from model.layers.norm_layouts import settle_norm_layouts
from pipeline.errors import Mismatch
from pipeline.files import atomic_write, remove_file

LAST_NUMBERS = ("loss", "seconds_per_step", "clips_per_second", "memory_gib")      # that are shown for the whole run


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything the loop needs of a stage, built inside each worker."""

    model: nn.Module                                            # on the CPU; `optimizer.frozen` is not yet applied
    losses_of: Callable[[nn.Module, Any], Losses]               # (wrapped model, batch on the device) -> weighted terms
    batches: Callable[[int, int, int], Iterator[Any]]           # (rank, world, consumed samples) -> endless batches
    optimizer: OptimizerConfig
    fit: FitConfig
    batch_size: int                                             # samples per batch, over all workers
    validation: Validation | None = None                        # scores while it trains; None: none


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The input of every training process. It is sent to workers, so all of it must be picklable."""

    build: Callable[[], Stage]      # called inside each worker
    folder: Path                    # of the stage: checkpoints, progress.jsonl and identity.json
    cluster: ClusterConfig
    fit: FitConfig
    record: Record | None           # of the verb, for the tracker; None where nothing is recorded
    keeps_best: bool = False        # the result is the weights with the best score, see `Validation.patience`
    setting: str = ""               # of the recipe, that holds the stage's settings; "": the name of the folder


def train(job: TrainingJob, *, identity: Identity) -> dict[str, Tensor]:
    """Train a stage on the cluster, or in this process under `cluster.in_process`, and return its weights.

    Calling it again resumes from the newest whole checkpoint. identity: everything that decides the result; a folder
    whose training was started with another identity raises Mismatch, which names the differing fields. Also raises
    Mismatch where checkpoints are there but none can be used, NotFinite, OSError where no checkpoint can be written or
    workers died more often than `cluster.max_failures`, and the ValueError or FileNotFoundError of a worker that met
    wrong data or settings.
    """
    is_new = not (job.folder / IDENTITY).is_file()
    claim_folder(job.folder, identity, left_by_training=(RAY_CHECKPOINTS, OWN_CHECKPOINTS))
    try:
        if job.cluster.in_process:
            _train_here(job)
        else:
            from jobs.training.on_cluster import train_on_cluster  # Ray Train takes a second to import

            train_on_cluster(job, _train)
    except NotFinite as error:
        _note_divergence(job, error)
        raise
    except (ValueError, FileNotFoundError):
        if is_new and not checkpoints(job.folder):      # settings with which training cannot begin claim no folder
            remove_file(job.folder / IDENTITY)
        raise
    remove_file(job.folder / DIVERGED)
    return _finished_weights(job)


def _note_divergence(job: TrainingJob, error: NotFinite) -> None:
    """Mark the folder, so that it may be trained anew with other settings, and add the way out to the error."""
    atomic_write(job.folder / DIVERGED, json.dumps({"error": str(error)}).encode())
    stage = job.setting or job.folder.name
    last = next(reversed(checkpoints(job.folder)), None)
    error.add_note(f"Lower {stage}.optimizer.lr, set {stage}.optimizer.clip_norm, set {stage}.fit.precision=fp32, or "
                   f"check the labels, and run the command again: {job.folder} is then trained anew.")
    error.add_note(f"The last finite checkpoint is {last}." if last else "No checkpoint was saved before.")


def train_in_memory(build: Callable[[], Stage], fit_config: FitConfig, *, device: torch.device
                    ) -> tuple[dict[str, Tensor], list[StepReport]]:
    """Train a short stage in this process, without files or tracker.

    Returns its weights, which are those that `train` makes in one process, and the reports of its steps. Raises
    NotFinite where training diverges.
    """
    torch.manual_seed(fit_config.seed)
    stage = _built(build, device)
    model = stage.model.to(device)
    reports: list[StepReport] = []
    batches = (batch.to(device) for batch in stage.batches(0, 1, 0))
    optimizer = build_optimizer(model, stage.optimizer)
    scores = Validator(stage.validation) if stage.validation else None
    average = WeightAverage(fit_config.ema, model) if fit_config.ema else None

    def is_over(step: int) -> bool:
        if average is not None:
            average.update(step, model)
        if scores is None or step % stage.validation.every:
            return False
        refuse_infinite_weights(model, step)
        with nullcontext() if average is None else average.in_place_of(model):
            scores(step, model)
        return scores.is_over

    fit(model, batches, lambda batch: stage.losses_of(model, batch), optimizer=optimizer, rates=stage.optimizer,
        config=stage.fit, log=reports.append, save=partial(refuse_infinite_weights, model), is_over=is_over)
    last = model.state_dict() if average is None else average.weights
    return (scores.best if scores and scores.best else last), reports


def _train_here(job: TrainingJob) -> None:
    gpu = job.cluster.gpus_per_worker > 0 and torch.cuda.is_available()
    process = SingleProcess(job.folder, job.fit.keep_checkpoints, torch.device("cuda" if gpu else "cpu"))
    if (error := _train(job, process)) is not None:
        raise error


def _finished_weights(job: TrainingJob) -> dict[str, Tensor]:
    checkpoint = newest_whole(job.folder, first_step=job.fit.checkpoint_every)
    state = whole_state(checkpoint) if checkpoint else {"step": 0}
    if (step := state["step"]) != job.fit.steps and not state.get("ended"):
        raise Mismatch(f"the newest whole checkpoint, {checkpoint}, has step {step}, not {job.fit.steps}; run the "
                       "command again to train on from there")
    choices = [*([BEST] if job.keeps_best else []), AVERAGE, "model.safetensors"]
    return load_file(next(path for name in choices if (path := checkpoint / name).is_file()))


def best_weights(job: TrainingJob) -> tuple[dict[str, Tensor], list[list[float]]] | None:
    """The weights with the best score of a finished training, and all scores as (step, number); None without any."""
    checkpoint = newest_whole(job.folder, first_step=job.fit.checkpoint_every)
    if checkpoint is None or not (checkpoint / BEST).is_file():
        return None
    return load_file(checkpoint / BEST), whole_state(checkpoint)["validation"]


def _train(job: TrainingJob, process: TrainingProcess) -> Exception | None:
    torch.set_num_threads(max(int(job.cluster.cpus_per_worker), 1))
    if process.device.type == "cuda":
        torch.cuda.set_device(process.device)
    torch.manual_seed(job.fit.seed)      # the same initial weights on every rank
    stage = None
    checkpoint = None
    error = None
    try:
        stage = _built(job.build, process.device)
        checkpoint = newest_whole(job.folder, first_step=job.fit.checkpoint_every) if rank() == 0 else None
    except (ValueError, FileNotFoundError) as raised:
        error = raised
    if (error := _first_error(error)) is not None:
        return error
    try:
        ended = _fit(stage, job, process, _of_rank_0(checkpoint))
    except NotFinite as error:
        with suppress(OSError):         # the error of the training is the one to tell
            process.finish()
        return error
    except _NotSaved as failure:
        return failure.reason
    if ended:
        return None
    if rank() == 0:
        say("a machine will soon be gone: the step is saved, and training begins again on those that stay")
    return Leaving()


class _NotSaved(Exception):
    """A checkpoint cannot be written, such as to a full disk. All ranks raise it together."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _built(build: Callable[[], Stage], device: torch.device) -> Stage:
    """The stage, its model in training mode with its frozen parts. Raises ValueError for settings that match nothing.
    """
    stage = build()
    if device.type == "cuda" and world() > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(stage.model)      # in place; before freezing, since it makes new norms
    elif world() > 1 and rank() == 0:
        say("batch norm is not synchronised on CPUs: each rank normalises over its own part of the batch")
    settle_norm_layouts(stage.model)
    freeze(stage.model, stage.optimizer.frozen)
    parameter_groups(stage.model, stage.optimizer)
    stage.model.train()     # a new module is in training mode, but norms that keep their statistics wait for this call
    return stage


def _first_error(error: Exception | None) -> Exception | None:
    """The first error of any rank, on all ranks: a rank that stopped alone would leave the others waiting."""
    errors = [error]
    if world() > 1:
        errors = [None] * world()
        dist.all_gather_object(errors, error)
    return next((error for error in errors if error is not None), None)


def _of_rank_0(value: Any) -> Any:
    """The value of rank 0, on all ranks: machines may see a shared folder at different moments."""
    values = [value]
    if world() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def _refuse_divergence(model: nn.Module, step: int) -> None:
    """Raise NotFinite, on all ranks, where the weights of rank 0 are not finite.

    Those are saved. Statistics of norms may differ between ranks until the next step takes those of rank 0, and a rank
    that stopped alone because of them would leave the others waiting.
    """
    error = None
    if rank() == 0:
        try:
            refuse_infinite_weights(model, step)
        except NotFinite as raised:
            error = raised
    if (error := _of_rank_0(error)) is not None:
        raise error


def _fit(stage: Stage, job: TrainingJob, process: TrainingProcess, checkpoint: Path | None) -> bool:
    """Train from a checkpoint, or from step 0 without one. Returns False where training has to go on elsewhere."""
    model, device = stage.model, process.device
    wrapped = process.wrap(model)
    optimizer = build_optimizer(model, stage.optimizer)
    state = load_checkpoint(checkpoint, model=model, optimizer=optimizer) if checkpoint else None
    scaler = loss_scaler(stage.fit, device)
    if state is not None and scaler.is_enabled() and "scaler" in state:     # earlier checkpoints have none
        scaler.load_state_dict(state["scaler"])
    start = 0 if state is None else state["step"]
    if state is not None and rank() == 0:
        say(f"resumed at step {start} (workers before: {state['world']}, now: {world()})")
    report = _Reporter(stage, job, start, device) if rank() == 0 else None
    scores = Validator(stage.validation, checkpoint, state) if stage.validation and rank() == 0 else None
    average = WeightAverage(stage.fit.ema, model, checkpoint) if stage.fit.ema and rank() == 0 else None
    per_step = stage.batch_size * stage.fit.accumulate

    def is_over(step: int) -> bool:
        if average is not None:
            average.update(step, model)
        if stage.validation is None or step % stage.validation.every:
            return False
        _refuse_divergence(model, step)     # first, since no metric takes what such weights predict
        numbers = None
        if scores is not None:
            with nullcontext() if average is None else average.in_place_of(model):
                numbers = scores(step, model)
        is_last = bool(_of_rank_0(scores is not None and scores.is_over))
        if numbers is not None:         # behind the exchange, so that the other ranks do not wait for pictures
            report.scored(step, numbers, stage.validation)
        return is_last

    def save(step: int) -> None:
        _refuse_divergence(model, step)
        if report is not None:      # first: steps before the checkpoint are never repeated
            report.finish()
        state = {"step": step, "consumed_samples": step * per_step, "seed": stage.fit.seed, "world": world()}
        if scores is not None:
            state |= {"validation": scores.history, "ended": scores.is_over}
        if scaler.is_enabled():
            state |= {"scaler": scaler.state_dict()}
        write = partial(save_checkpoint, model=model, optimizer=optimizer, state=state,
                        further={BEST: {} if scores is None else scores.best,
                                 AVERAGE: {} if average is None else average.weights})
        _on_all_ranks(partial(process.keep, step, write))

    if state is not None and state.get("ended"):
        return True
    batches = (batch.to(device) for batch in stage.batches(rank(), world(), start * per_step))
    try:
        ended = fit(wrapped, batches, lambda batch: stage.losses_of(wrapped, batch), optimizer=optimizer,
                    rates=stage.optimizer, config=stage.fit, start_step=start, log=report or (lambda _: None),
                    save=save, is_over=is_over, scaler=scaler, batch_size=stage.batch_size,
                    is_leaving=process.is_leaving)
        _on_all_ranks(process.finish)
    finally:
        if report is not None:
            report.tracker.flush()
    return ended


def _on_all_ranks(save: Callable[[], None]) -> None:
    """Save something. Raises _NotSaved, on all ranks, where one of them cannot."""
    error = None
    try:
        save()
    except OSError as raised:
        error = raised
    if (error := _first_error(error)) is not None:
        raise _NotSaved(error)


class _Reporter:
    """Reports of rank 0: the status line, the JSON lines and the tracker."""

    def __init__(self, stage: Stage, job: TrainingJob, start: int, device: torch.device) -> None:
        self.stage = job.folder.name
        self.last: dict[str, float] = {}
        self.progress = Progress(job.folder / "progress.jsonl", stage.fit.steps, world())
        self.tracker = NoTracker() if job.record is None else Tracker(job.record)
        self.load = MachineLoad(job.folder) if job.record is not None and is_wanted() else None
        if start:
            self.tracker.tags({"resumed_from_step": start})
        trained = sum(p.numel() for p in stage.model.parameters() if p.requires_grad)
        say(f"training {trained / 1e6:.2f} M parameters for {stage.fit.steps} steps from step {start}: "
            f"{stage.batch_size} samples a batch on {world()} workers, {stage.fit.accumulate} batches a step")
        if stage.fit.precision == "fp16" and device.type == "cpu":
            say("fp16 needs a GPU: training in fp32")
        self.tracker.parameters({"trainable_parameters": trained, "workers": world(), **_plain(stage)})

    def __call__(self, report) -> None:
        numbers = self.progress(report)
        self.tracker.numbers(report.step, numbers if self.load is None else numbers | self.load.numbers())
        self.last = {f"{self.stage}/{name}": numbers[name] for name in LAST_NUMBERS}

    def finish(self) -> None:
        """Log what is buffered; the last numbers also belong to the run of the whole pipeline."""
        self.progress.keep()
        if self.last:
            self.tracker.parent_numbers(self.last)
        self.tracker.flush()

    def scored(self, step: int, numbers: Mapping[str, float], validation: Validation) -> None:
        """Print and track scores that were made during training, and store the pictures that belong to them."""
        say(f"step {step:05d} scores, {validation.about}: " + ", ".join(f"{name} {value:.1f}"
                                                                        for name, value in numbers.items()))
        self.tracker.numbers(step, {f"validation/{name}": value for name, value in numbers.items()})
        try:
            pictures = validation.draw(step)
        except OSError as error:        # such as a full disk, which must not end a training for the sake of pictures
            say(f"step {step:05d} has no pictures: {error}")
            return
        if pictures is not None:
            self.tracker.file(pictures, f"pictures/{pictures.name}")


def _plain(stage: Stage) -> dict[str, Any]:
    settings = {"optimizer": stage.optimizer, "fit": stage.fit}
    return {f"{part}.{name}": getattr(config, name) for part, config in settings.items()
            for name in type(config).__dataclass_fields__} | {"batch_size": stage.batch_size}
