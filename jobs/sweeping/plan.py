"""The trials of a sweep: which settings are tried, with which seeds.

    stage_two.head.layers=2,4,6             values, as `--set` takes them
    stage_two.optimizer.lr=1e-4..1e-2       a range; numbers are drawn from it, evenly on a logarithmic scale where both
                                            ends are above 0 and the larger is at least ten times the smaller
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.config import override, to_json
from jobs.recipes.schema import Recipe
from pipeline.files import digest

# What may change: anything else needs another cache, or another pass of the segmenter.
SWEPT = ("stage_two.", "inference.panoptic.", "inference.tracks.", "inference.head.")
SEEDS = ("stage_two.fit.seed", "stage_two.input.seed")
LOGARITHMIC = 10                            # ratio of the ends of a range

_RANGE = re.compile(r"(?P<low>[-+.\deE]+)\.\.(?P<high>[-+.\deE]+)")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, whole ones where both ends are."""

    low: float
    high: float
    whole: bool

    def draw(self, random: np.random.Generator) -> str:
        """One number, as `--set` takes it."""
        if self.whole:
            return str(int(random.integers(int(self.low), int(self.high) + 1)))
        if self.low > 0 and self.high / self.low >= LOGARITHMIC:
            return f"{math.exp(random.uniform(math.log(self.low), math.log(self.high))):.6g}"
        return f"{random.uniform(self.low, self.high):.6g}"


@dataclass(frozen=True)
class Axis:
    """One setting and what is tried for it."""

    setting: str
    choices: tuple[str, ...] | Range

    def draw(self, random: np.random.Generator) -> str:
        """`setting=value` with a random value."""
        choices = self.choices
        value = choices.draw(random) if isinstance(choices, Range) else choices[int(random.integers(len(choices)))]
        return f"{self.setting}={value}"


@dataclass(frozen=True)
class Trial:
    """One training of the cross-clip head, and its score."""

    settings: tuple[str, ...]       # path=value, in which it differs from the recipe of the sweep
    seed: int                       # of the initial weights and of the order of the data
    steps: int | None = None        # of a shortened training; None: as the recipe says

    def recipe(self, base: Recipe) -> Recipe:
        """The recipe of this trial. Raises ValueError for a setting that does not exist or does not fit the others."""
        steps = () if self.steps is None else (f"stage_two.fit.steps={self.steps}",)
        return override(base, [*self.settings, *steps, *(f"{name}={self.seed}" for name in SEEDS)])

    def name(self, base: Recipe, *, inputs: Sequence[str]) -> str:
        """The name of its files: equal for equal trials on equal inputs. inputs: fingerprints of cache and segmenter.
        """
        recipe = self.recipe(base)
        scored = {name: getattr(recipe.evaluation, name) for name in ("split", "windows", "stq_compat", "mvc_compat")}
        stage = to_json(recipe.stage_two)
        if not (stage["validation"] or {}).get("patience"):     # scores that end no training only look on
            del stage["validation"]
        for part in filter(None, (stage, stage["links"])):
            if not part["fit"]["ema"]:          # names of trials of earlier versions are without it
                del part["fit"]["ema"]
        return digest({"stage_two": stage, "inference": to_json(recipe.inference),
                       "scored": json.loads(json.dumps(scored)), "inputs": list(inputs)})[:16]


def read_axis(text: str) -> Axis:
    """Read one `--over`. Raises ValueError that shows the form."""
    setting, separator, values = text.partition("=")
    if not separator or not values:
        raise ValueError(f"--over {text}: give setting=value,value,... or setting=low..high, such as "
                         "--over stage_two.head.layers=2,4,6")
    if setting.startswith("stage_two.links"):
        raise ValueError(f"--over {text}: a sweep trains cross-clip heads, and learned links are trained apart; run "
                         "jobs.train_stage_two with --set, in a folder of its own")
    if not setting.startswith(SWEPT):
        raise ValueError(f"--over {text}: a sweep trains heads from one query cache, so it changes settings that begin "
                         f"with {', '.join(SWEPT[:-1])} or {SWEPT[-1]}; run the verbs with --set {setting}=... instead")
    if match := _RANGE.fullmatch(values):
        return Axis(setting, _read_range(text, match["low"], match["high"]))
    return Axis(setting, tuple(_split(values)))


def _read_range(text: str, low: str, high: str) -> Range:
    try:
        ends = float(low), float(high)
    except ValueError:
        raise ValueError(f"--over {text}: the ends of a range are numbers, such as 1e-4..1e-2") from None
    if not ends[0] < ends[1]:
        raise ValueError(f"--over {text}: the range ends below its start; write the smaller number first")
    return Range(*ends, whole=all(re.fullmatch(r"[-+]?\d+", end) for end in (low, high)))


def _split(values: str) -> list[str]:
    """The values between commas; commas inside brackets and quotes belong to a value, as JSON has them."""
    parts = [""]
    depth = 0
    quoted = False
    for character in values:
        quoted ^= character == '"'
        depth += 0 if quoted else (character in "[{") - (character in "]}")
        if character == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def grid(axes: Sequence[Axis]) -> list[tuple[str, ...]]:
    """Every combination, the last axis fastest. Raises ValueError for a range, which has no end of values."""
    if ranges := [axis.setting for axis in axes if isinstance(axis.choices, Range)]:
        raise ValueError(f"--over {ranges[0]}=low..high has no list of values to combine; give --trials with "
                         "--scheduler random, or list the values")
    columns = [[f"{axis.setting}={value}" for value in axis.choices] for axis in axes]
    return list(itertools.product(*columns))


def drawn(axes: Sequence[Axis], count: int, *, seed: int) -> list[tuple[str, ...]]:
    """`count` random combinations, all different. A larger count begins with those of a smaller one.

    Fewer are returned where there are no more.
    """
    random = np.random.default_rng(seed)
    found: dict[tuple[str, ...], None] = {}
    for _ in range(100 * count):
        if len(found) == count:
            break
        found.setdefault(tuple(axis.draw(random) for axis in axes))
    return list(found)


def refuse_unfit(trials: Iterable[Trial], base: Recipe) -> list[tuple[Trial, str]]:
    """The trials whose settings do not fit together, with the reason. Raises ValueError if that is all of them."""
    trials = list(trials)
    unfit = []
    for trial in trials:
        try:
            trial.recipe(base)
        except ValueError as error:
            unfit.append((trial, str(error)))
    if unfit and len(unfit) == len(trials):
        raise ValueError(f"none of {len(trials)} trials can be run; the first: {unfit[0][1]}")
    return unfit
