"""Learning-rate schedules of the official code, written as plain formulas, and the steps at which they are compared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Poly:
    """kMaX-DeepLab, MaXTron and Video-kMaX: a linear warm-up, then (1 - step / steps) ** power."""

    lr: float
    steps: int
    warmup: int
    factor: float = 0.001
    power: float = 0.9

    def rate(self, step: int) -> float:
        """The learning rate of a parameter without a multiplier. step: 0 ... steps - 1."""
        if step < self.warmup:
            share = step / self.warmup
            return self.lr * (self.factor * (1 - share) + share)
        return self.lr * (1 - step / self.steps) ** self.power

    def chosen_steps(self) -> list[int]:
        """Where two schedules that differ anywhere are likely to differ."""
        return [0, self.warmup // 2, self.warmup - 1, self.warmup, self.steps // 2, self.steps - 1]

    def __str__(self) -> str:
        return f"{self.lr:g}, warm-up {self.warmup:,}, poly {self.power:g} over {self.steps:,} steps"


@dataclass(frozen=True, kw_only=True)
class Drops:
    """mmdetection and VITA: a linear warm-up, then a tenth of the rate after each milestone."""

    lr: float
    steps: int
    milestones: tuple[int, ...]
    warmup: int = 0
    factor: float = 0.001

    def rate(self, step: int) -> float:
        """The learning rate of a parameter without a multiplier. step: 0 ... steps - 1."""
        share = min(step / self.warmup, 1) if self.warmup else 1
        drops = len([milestone for milestone in self.milestones if step >= milestone])
        return self.lr * (1 - (1 - self.factor) * (1 - share)) * 0.1 ** drops

    def chosen_steps(self) -> list[int]:
        """Where two schedules that differ anywhere are likely to differ."""
        around = [step for milestone in self.milestones for step in (milestone - 1, milestone, milestone + 1)]
        return sorted({0, self.warmup // 2, max(self.warmup - 1, 0), self.warmup, *around, self.steps - 1})

    def __str__(self) -> str:
        warmup = f"warm-up {self.warmup:,}" if self.warmup and self.factor < 1 else "no warm-up"
        drops = ", ".join(f"{milestone:,}" for milestone in self.milestones)
        return f"{self.lr:g}, {warmup}, a tenth after {drops} of {self.steps:,} steps"
