"""The training loop of both stages. It owns nothing: the stage hands in the model, batches, optimizer and losses.

Randomness inside a step (drop path, pixel sampling) is seeded from (seed, step, rank), so a resumed run draws the
same numbers as one that was never interrupted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from jobs.training.optimizer import OptimizerConfig, rate_factor, set_rate
from model.precision import Precision, autocast

Losses = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How long to train, in which precision, and how often to report and to save."""

    steps: int = 40_000
    accumulate: int = 1                                    # batches per optimizer step
    precision: Precision = "fp32"                          # fp16 needs a GPU; on a CPU fp32 is used and said so
    log_every: int = 20
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    seed: int = 0
    ema: float = 0.0                                       # decay of a moving average of the weights, such as 0.999,
                                                           # which is then scored and kept; 0: the last weights are

    def __post_init__(self) -> None:
        if min(self.steps, self.accumulate, self.log_every, self.checkpoint_every, self.keep_checkpoints) < 1:
            raise ValueError("steps, accumulate, log_every, checkpoint_every and keep_checkpoints must be at least 1")
        if not 0 <= self.ema < 1:
            raise ValueError(f"fit.ema={self.ema} must be at least 0 and less than 1; it is the decay of an average")


class NotFinite(ArithmeticError):
    """Training diverged: a loss term or a weight is infinite or not a number. The message names it and the step."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """Measurements of one interval of steps on this rank; losses, seconds and shares are means over the interval."""

    step: int                     # finished steps
    losses: dict[str, float]      # weighted terms
    lr: float
    seconds: float                # per step
    data_wait: float              # share of the time spent waiting for batches, 0 to 1
    samples_per_second: float     # this rank


def fit(model: nn.Module, batches: Iterator[Any], losses_of: Callable[[Any], Losses], *,
        optimizer: torch.optim.Optimizer, rates: OptimizerConfig, config: FitConfig, start_step: int = 0,
        log: Callable[[StepReport], None], save: Callable[[int], None],
        is_over: Callable[[int], bool] = lambda step: False, scaler: torch.amp.GradScaler | None = None,
        batch_size: int | None = None, is_leaving: Callable[[], bool] = lambda: False) -> bool:
    """Train from `start_step` to `config.steps`. Returns whether training ended there, or earlier by `is_over`.

    losses_of: returns weighted scalars by name; their sum is minimised. batches: yields objects with `.videos`; each
    step takes `accumulate` of them. log: called every `log_every` steps and after the last one. save: called every
    `checkpoint_every` steps and after the last one, on every rank. is_over: asked after every step whether it is the
    last one. scaler: of the losses; by default that of `loss_scaler`. batch_size: samples of a batch over all ranks, by
    which the losses of a rank are weighed; None: all ranks have equally many. is_leaving: asked in every step whether
    this rank has to stop; where one has, the step is saved on all ranks, which return False. Raises NotFinite on all
    ranks together.
    """
    device = next(model.parameters()).device
    scaler = scaler or loss_scaler(config, device)
    clock = _Clock(start_step)
    for step in range(start_step, config.steps):
        rate = rates.lr * rate_factor(step, config.steps, rates)
        set_rate(optimizer, rate)
        for micro in range(config.accumulate):
            with clock.waiting():
                batch = next(batches)
            seed_step(config.seed, step * config.accumulate + micro)    # after reading, which may draw numbers too
            with _local_gradients(model, micro + 1 < config.accumulate), autocast(device, config.precision):
                losses = losses_of(batch)
                check = StepCheck(losses, step, batch.videos, is_leaving=is_leaving())
                weight = 1.0 if batch_size is None else weight_of_share(len(batch.videos), batch_size)
                scaler.scale(sum(losses.values()) * weight / config.accumulate).backward()
                check.finish()
            clock.add(losses, len(batch.videos))
        scaler.unscale_(optimizer)
        if rates.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), rates.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

        done = step + 1
        ends = is_over(done) or done == config.steps
        stops = ends or check.leaves
        if done % config.log_every == 0 or stops:
            log(clock.report(done, rate))
        if done % config.checkpoint_every == 0 or stops:
            save(done)
        if stops:
            return ends
    return True


def weight_of_share(samples: int, batch_size: int) -> float:
    """The factor of a rank's losses, which are means over its samples, that makes the mean over ranks one over samples.

    It is exactly 1 where all ranks have equally many.
    """
    return samples * world() / batch_size


def seed_step(seed: int, step: int) -> None:
    """Seed torch from (seed, step, rank), so that the numbers drawn in a step do not depend on the steps before it."""
    torch.manual_seed((seed * 1_000_003 + step) * 8191 + rank())


def loss_scaler(config: FitConfig, device: torch.device) -> torch.amp.GradScaler:
    """The scaler of fp16 losses; in other precisions, and on a CPU, it does nothing. Its state is part of a run."""
    return torch.amp.GradScaler(device.type, enabled=config.precision == "fp16" and device.type == "cuda")


class StepCheck:
    """Stops all ranks together when any loss term on any rank is infinite or not a number, or a rank has to leave.

    A CPU looks at once. A GPU sends the answer on its way, and `finish` looks at it: between the two, the backward pass
    is put into the queue of the GPU, which would run dry if it were asked first.
    """

    def __init__(self, losses: Losses, step: int, videos: tuple[str, ...], *, is_leaving: bool = False) -> None:
        """losses: of one batch. is_leaving: whether this rank has to leave. Raises NotFinite, as `finish` does."""
        self.losses = losses
        self.step = step
        self.videos = videos
        self.leaves = False         # whether any rank has to leave, which is known after `finish`
        bad = torch.stack([~torch.isfinite(term.detach()).all() for term in losses.values()]).any().float()
        flags = torch.stack([bad, torch.full_like(bad, is_leaving)])
        if world() > 1:
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        self._flags = flags
        self._copied = None
        if flags.is_cuda:
            self._flags = torch.empty(2, pin_memory=True).copy_(flags, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self.finish()

    def finish(self) -> None:
        """Raise NotFinite, which names terms, step and videos, if a term is not finite."""
        if self._copied is not None:
            self._copied.synchronize()
        is_bad, self.leaves = map(bool, self._flags.tolist())
        if not is_bad:
            return
        terms = [f"{name} = {term.item()}" for name, term in self.losses.items() if not torch.isfinite(term).all()]
        reports = [f"rank {rank()}: {', '.join(terms)} in videos {', '.join(self.videos)}" if terms else ""]
        if world() > 1:
            [own] = reports
            reports = [None] * world()
            dist.all_gather_object(reports, own)
        raise NotFinite(f"the loss is not finite at step {self.step}: {'; '.join(filter(None, reports))}.")


def refuse_infinite_weights(model: nn.Module, step: int) -> None:
    """Raise NotFinite before a model is saved that no later verb can use."""
    broken = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise NotFinite(f"{len(broken)} weights are not finite after step {step}, first {broken[0]}; nothing of this "
                        "step is saved.")


def rank() -> int:
    """The index of this process among the training workers; 0 in a process without workers."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world() -> int:
    """The number of training workers; 1 in a process without workers."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _local_gradients(model: nn.Module, more_to_come: bool):
    """A context in which DDP exchanges no gradients, for every batch of a step but the last."""
    return model.no_sync() if more_to_come and hasattr(model, "no_sync") else contextlib.nullcontext()


class _Clock:
    """Sums over the steps since the last report. Loss tensors stay on their device until the next report."""

    def __init__(self, step: int) -> None:
        self._restart(step)

    def _restart(self, step: int) -> None:
        self.start = time.perf_counter()
        self.wait = 0.0
        self.samples = 0
        self.batches = 0
        self.last_step = step
        self.sums = {}

    @contextlib.contextmanager
    def waiting(self):
        before = time.perf_counter()
        yield
        self.wait += time.perf_counter() - before

    def add(self, losses: Losses, samples: int) -> None:
        self.samples += samples
        self.batches += 1
        for name, term in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + term.detach()

    def report(self, step: int, lr: float) -> StepReport:
        seconds = max(time.perf_counter() - self.start, 1e-9)
        means = {name: float(total) / self.batches for name, total in self.sums.items()}
        result = StepReport(step, means, lr, seconds / (step - self.last_step), self.wait / seconds,
                            self.samples / seconds)
        self._restart(step)
        return result
