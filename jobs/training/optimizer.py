"""AdamW with parameter groups by name, and the learning-rate schedule.

Lists of a recipe decide what happens to a parameter, by parts of its name: `multipliers` of the learning rate, and
`decay` and `no_decay`. The defaults exempt from decay what kMaX-DeepLab and MaXTron on it exempt (`train_net.py` and
`train_net_video.py` of TACJu/MaXTron): norms, biases, relative positions, query embeddings and layer scales. Recipes of
other families have rules of their own. Frozen parts (`jobs.training.freezing`) are in no group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.LocalResponseNorm)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """Settings of AdamW and of its learning rate schedule, which counts optimizer steps."""

    lr: float = 5e-5
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 2000
    warmup_factor: float = 0.001                        # of the learning rate, at step 0
    schedule: Literal["poly", "steps"] = "poly"
    power: float = 0.9                                  # poly: (1 - step / steps) ** power, counted from step 0
    milestones: tuple[int, ...] = ()                    # steps: the rate is divided by 10 at each
    clip_norm: float | None = None
    multipliers: tuple[tuple[str, float], ...] = ()     # (part of a parameter's name, factor); first match wins
    decay: tuple[tuple[str, bool], ...] = ()            # (part of a name, whether it decays); first match wins
    # Parts of names. What no rule of `decay` matches decays, unless it is in a norm or one of these matches.
    no_decay: tuple[str, ...] = ("bias", "relative_", "initial_queries", "query_positions",
                                 "query_decoder.level_embedding", "gamma", "scale")
    frozen: tuple[str, ...] = ()                        # parts of names; these parameters keep their weights

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.warmup_steps < 0:
            raise ValueError(f"optimizer.lr must be above 0 and warmup_steps not negative, got {self.lr} and "
                             f"{self.warmup_steps}")
        if self.schedule == "steps" and not self.milestones:
            raise ValueError("optimizer.schedule='steps' needs milestones, e.g. optimizer.milestones=[5000,10000]")
        if still := [part for part, factor in self.multipliers if factor <= 0]:
            raise ValueError(f"optimizer.multipliers: the factors of {still} are not above 0; to keep a part as it is, "
                             "name it in optimizer.frozen")


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict]:
    """The trainable parameters of `model`, grouped by their factor on the learning rate and their weight decay.

    Raises ValueError for a multiplier that matches no parameter: a misspelt name would let a part train at the wrong
    rate.
    """
    matched = set()
    groups = {}
    for name, parameter, module in _named(model):
        factor = 1.0
        for part, value in config.multipliers:
            if part in name:
                matched.add(part)
                factor = value
                break
        decay = config.weight_decay if _decays(name, module, config) else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    unused = [part for part, _ in config.multipliers if part not in matched]
    if unused:
        raise ValueError(f"optimizer.multipliers: {unused} occur in the name of no trainable parameter of "
                         "this model; correct or remove them")
    return [{"params": params, "lr": config.lr * factor, "factor": factor, "weight_decay": decay}
            for (factor, decay), params in sorted(groups.items())]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; each group keeps its `factor` for the schedule.

    The fused version updates all parameters in one kernel, which takes a quarter of the time of torch's loop over them
    for a small model on a CPU.
    """
    return torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, betas=config.betas, fused=True)


def rate_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Factor on the learning rate at `step` (0 ... steps - 1): a linear warm-up, then the poly or steps schedule."""
    if step < config.warmup_steps:
        return config.warmup_factor + (1 - config.warmup_factor) * step / config.warmup_steps
    if config.schedule == "steps":
        return 0.1 ** sum(step >= milestone for milestone in config.milestones)
    return (1 - step / steps) ** config.power


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each group to `rate` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """(name, parameter, owning module) of every trainable parameter, each once."""
    seen = set()
    for prefix, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}.{leaf}" if prefix else leaf, parameter, module


def _decays(name: str, module: nn.Module, config: OptimizerConfig) -> bool:
    for part, decays in config.decay:
        if part in name:
            return decays
    kind = type(module).__name__
    if kind == "GlobalResponseNorm":        # ConvNeXtV2's authors call timm's weight gamma, and its bias beta, which
        return name.endswith(".bias")       # no official rule matches: its class is no norm, its name not "bias"
    if isinstance(module, NORMS) or kind.lower().endswith(("norm", "norm2d")):
        return False
    return not any(part in name for part in config.no_decay)
