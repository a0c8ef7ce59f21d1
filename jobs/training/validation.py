"""Scores of a model while it trains: curves, the best weights so far, and the end of a training that gets no better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from jobs.training.checkpoint import BEST, contiguous


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How a stage is scored while it trains."""

    score: Callable[[nn.Module], Mapping[str, float | None]]    # of the model in evaluation mode; numbers by name
    every: int                          # steps
    number: str                         # by which weights are better than others
    lower_is_better: bool = False
    patience: int = 0                   # scores without a better one that end the training; 0: it takes all steps
    keeps_best: bool = False            # whether the best weights are kept even where no score ends the training
    about: str = "from the cache"       # of the scores, for people
    draw: Callable[[int], Path | None] = lambda step: None      # pictures of what was scored last; returns their folder


class Validator:
    """The scores of one training, in the one process that makes them.

    History and best weights lie in each checkpoint, so a training that is resumed ends as an undisturbed one does.
    """

    def __init__(self, validation: Validation, checkpoint: Path | None = None, state: Mapping[str, Any] | None = None
                 ) -> None:
        """checkpoint, state: from which the training resumes."""
        self.validation = validation
        self.history: list[list[float]] = list((state or {}).get("validation", []))     # step, number
        self.best: dict[str, Tensor] = {}
        if self.history and (checkpoint / BEST).is_file():
            self.best = load_file(checkpoint / BEST)

    @property
    def is_over(self) -> bool:
        """Whether the last `patience` scores are no better than one before them."""
        patience = self.validation.patience
        return bool(patience) and len(self.history) - 1 - self._best_index() >= patience

    def __call__(self, step: int, model: nn.Module) -> dict[str, float]:
        """Score the model after a step, and keep its weights if they are the best so far. Returns the numbers."""
        was_training = model.training
        numbers = {name: value for name, value in self.validation.score(model.eval()).items() if value is not None}
        model.train(was_training)
        if self.validation.number in numbers:
            self.history.append([step, numbers[self.validation.number]])
            if (self.validation.patience or self.validation.keeps_best) and self._best_index() == len(self.history) - 1:
                self.best = contiguous(model.state_dict())
        return numbers

    def _best_index(self) -> int:
        """The position of the first of the best scores; -1 without any."""
        values = [-value if self.validation.lower_is_better else value for _, value in self.history]
        return values.index(max(values)) if values else -1
