"""Train and score many cross-clip heads from one query cache, and rank them.

In:     a finished segmenter and its query cache (jobs.cache_queries), and the shards of evaluation.split.
        --over names a setting with its values, stage_two.head.layers=2,4,6, or with a range, such as 1e-4..1e-2.
Out:    <folder>/sweeps/<name>: ranking.txt, ranking.png, trials.parquet, and a json for each trial. Every trial is a
        run in MLflow. The best model is kept, laid out as a run's folder, and registered; the others are deleted.
Again:  finished trials are kept, only the missing ones are run; more values or more --trials extend a sweep.
Cost:   each trial is one training of stage two; the segmenter sees the split once for every --together trials.

    python -m jobs.sweep --recipe demo --over stage_two.head.layers=2,4,6 --seeds 3
    python -m jobs.sweep --recipe demo --over stage_two.optimizer.lr=1e-4..1e-2 --over stage_two.head.layers=1,2,4 \\
        --scheduler halving --trials 60 --metric vpq_k12
    python -m jobs.sweep --recipe demo --over stage_two.head.layers=2,4,6 --rank-from-cache \\
        --set stage_two.validation={}
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jobs.cache_queries import open_cache
from jobs.cached_validation import numbers, open_scores
from jobs.cluster import connect
from jobs.console import say
from jobs.models import lineage, read_card
from jobs.recipes.schema import Recipe
from jobs.start_weights import refuse_unfit_starts
from jobs.sweeping.plan import Axis, Range, Trial, drawn, grid, read_axis, refuse_unfit
from jobs.sweeping.ranking import Row, TrialResult, best_of, ranked, table
from jobs.sweeping.results import TrialRecords, write_tables
from jobs.sweeping.trials import TrialWorker, head_folder
from jobs.sweeping.workers import Failure, Workers
from jobs.training.tracker import Tracker
from jobs.verb import CommandLine, command_line, next_command, recorded, run
from pipeline.at_work import alone_in
from pipeline.file_names import name_for
from pipeline.metrics.bootstrap import resampled
from pipeline.metrics.scorecard import FIRST_NUMBER, Scorecard
from pipeline.shards import ShardSet

HALVING = 3     # of every so many settings one is trained on, for as many times the steps
RUNGS = 3


@dataclass(frozen=True, kw_only=True)
class SweepFlags(CommandLine):
    """The flags of this verb."""

    over: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()    # setting=value,value,... or setting=low..high
    seeds: int = 1                  # trainings of each setting, which differ in weights at the start and order of data
    trials: int = 0                 # settings x seeds, at most; 0: every combination of the values
    scheduler: Literal["auto", "grid", "random", "halving"] = "auto"
                                    # grid: all combinations; random: --trials drawn ones; halving: the best third of
                                    # drawn ones is trained for three times the steps, twice; auto: grid or random
    metric: str = ""                # what is ranked, such as vpq_k12; empty: the first score of the results
    name: str = "sweep"             # of the folder
    together: int = 16              # trials that are scored in one pass over the frames
    rank_from_cache: bool = False   # score trials from the query cache alone (stage_two.validation), and only the best
                                    # one on the frames


def main(recipe: Recipe, flags: SweepFlags) -> dict[str, Any]:
    """Run the missing trials, rank all, keep the best model; returns where everything lies.

    Waits for another sweep of the same name.
    """
    refuse_unfit_recipe(recipe)
    folder = sweep_folder(recipe, flags)
    with alone_in(folder, "jobs.sweep"):
        return run_sweep(recipe, flags, folder)


def sweep_folder(recipe: Recipe, flags: SweepFlags) -> Path:
    """The folder of everything that a sweep leaves. Raises BadInput for a name that cannot be that of a folder."""
    return recipe.run_folder / "sweeps" / name_for(flags.name)


def run_sweep(recipe: Recipe, flags: SweepFlags, folder: Path) -> dict[str, Any]:
    """`main` in a folder that no other sweep uses."""
    metric = flags.metric or FIRST_NUMBER[recipe.inference.results[0]]
    axes = [read_axis(text) for text in flags.over]
    settings = planned(axes, flags)
    cache = open_cache(recipe)
    cache.refuse_damage()
    card = read_card(recipe.segmenter_folder)
    inputs = (cache.fingerprint, card["weights_sha256"])
    if flags.rank_from_cache:
        inputs = (*inputs, open_scores(recipe).fingerprint)
    refuse_unfit_starts(recipe, "stage_two")
    connect(recipe.cluster)
    with recorded(recipe, f"sweep_{flags.name}", cache=cache.fingerprint) as tracker:
        with Workers(TrialWorker, {"recipe": recipe, "folder": folder / "trials"}, recipe.cluster) as workers:
            sweep = Sweep(recipe, flags, metric, workers, TrialRecords(folder / "trials"), tracker,
                          inputs=inputs)
            results = sweep.run(settings)
            rows = ranked(results, metric)
            best = best_trial(rows, results, metric)
            keep_best(best, sweep, folder, tracker)
            on_frames = sweep.on_frames(best) if flags.rank_from_cache and best is not None else {}
        write_tables(folder, rows, results, metric)
        for name in ("ranking.txt", "ranking.png", "trials.parquet"):
            tracker.file(folder / name)
    say(table(rows, metric), *frames_lines(best, on_frames, metric), *closing_lines(recipe, folder, best))
    return {"folder": str(folder), "metric": metric, "trials": len(results), "new": sweep.count,
            "failed": sum(bool(result.error) for result in results), "registered_version": tracker.ids["version"],
            "best": None if best is None else {"settings": best.settings, "seed": best.seed,
                                               metric: best.numbers[metric]},
            "best_on_frames": on_frames}


def refuse_unfit_recipe(recipe: Recipe) -> None:
    """Raise ValueError if the recipe trains no head from a cache, or if the results of its head cannot be scored."""
    if recipe.stage_two is None or recipe.stage_two.head is None:
        raise ValueError(f"{recipe.name} trains no cross-clip head from a query cache, so there is nothing to sweep; "
                         f"choose a recipe with stage_two.head. {next_command(recipe, 'train_stage_one')}")
    if recipe.evaluation.association:
        raise ValueError(f"evaluation.association={recipe.evaluation.association} decides the order of queries by the "
                         "labels, which says nothing about a head; leave it empty")
    if "offline" not in recipe.modes:
        raise ValueError(f"the head of {recipe.name} does not make {', '.join(recipe.inference.results)}, so its "
                         "trials cannot be scored; set inference.results")


def planned(axes: Sequence[Axis], flags: SweepFlags) -> list[tuple[str, ...]]:
    """The settings of the sweep, as its scheduler begins with them. Raises ValueError for flags that do not fit."""
    if not axes:
        raise ValueError("there is nothing to try; give at least one --over setting=value,value,...")
    if min(flags.seeds, flags.together) < 1 or flags.trials < 0:
        raise ValueError(f"--seeds {flags.seeds} --together {flags.together} --trials {flags.trials}: seeds and "
                         "together are at least 1, trials at least 0")
    count = flags.trials // flags.seeds
    if flags.trials and not count:
        raise ValueError(f"--trials {flags.trials} is below --seeds {flags.seeds}: one setting takes that many trials")
    has_range = any(isinstance(axis.choices, Range) for axis in axes)
    scheduler = flags.scheduler if flags.scheduler != "auto" else "random" if flags.trials or has_range else "grid"
    if scheduler == "grid":
        return grid(axes)[:count or None]
    if not count:
        raise ValueError(f"--scheduler {scheduler} draws settings; say how many with --trials")
    return drawn(axes, count, seed=0)


class Sweep:
    """Runs the trials of one call of the verb."""

    def __init__(self, recipe: Recipe, flags: SweepFlags, metric: str, workers: Workers, records: TrialRecords,
                 tracker: Tracker, *, inputs: tuple[str, str]) -> None:
        self.recipe = recipe
        self.flags = flags
        self.metric = metric
        self.workers = workers
        self.records = records
        self.tracker = tracker
        self.inputs = inputs
        self.videos = ShardSet(recipe.shards_of(recipe.evaluation.split)).videos
        self.count = 0                          # trials that were run now
        self.started = time.perf_counter()

    def run(self, settings: Sequence[tuple[str, ...]]) -> list[TrialResult]:
        """The results of all trials, in the order of the plan; with halving, those of the last rung."""
        if self.flags.scheduler != "halving":
            return self._run(self._trials(settings, steps=None))
        steps = self.recipe.stage_two.fit.steps
        for rung in range(1, RUNGS):
            short = max(steps // HALVING ** (RUNGS - rung), 1)
            say(f"rung {rung} of {RUNGS}: {len(settings)} settings, {short} steps")
            rows = ranked(self._run(self._trials(settings, steps=short)), self.metric)
            settings = [row.settings for row in rows[:math.ceil(len(rows) / HALVING)] if row.seeds]
        say(f"rung {RUNGS} of {RUNGS}: {len(settings)} settings, {steps} steps")
        return self._run(self._trials(settings, steps=None))

    def _trials(self, settings: Sequence[tuple[str, ...]], *, steps: int | None) -> list[Trial]:
        return [Trial(setting, seed, steps) for setting in settings for seed in range(self.flags.seeds)]

    def name(self, trial: Trial) -> str:
        """The name of a trial's files."""
        return trial.name(self.recipe, inputs=self.inputs)

    def _run(self, trials: Sequence[Trial]) -> list[TrialResult]:
        unfit = dict(refuse_unfit(trials, self.recipe))
        failed = {trial: TrialResult(name="", settings=trial.settings, seed=trial.seed, error=error)
                  for trial, error in unfit.items()}
        names = {trial: self.name(trial) for trial in trials if trial not in unfit}
        known = {trial: self._known(name) for trial, name in names.items()}
        missing = [trial for trial, result in known.items() if result is None]
        if len(missing) < len(known):
            say(f"{len(known) - len(missing)} of {len(known)} trials are finished")
        for start in range(0, len(missing), self.flags.together):
            group = missing[start:start + self.flags.together]
            for result, trial in zip(self._round(group), group):
                known[trial] = result
            self._progress(len(missing), self.count)
        return [failed[trial] if trial in failed else known[trial] for trial in trials]

    def _known(self, name: str) -> TrialResult | None:
        result = self.records.read(name)
        if result is not None and self.metric not in result.draws:
            raise ValueError(f"the trials of {self.records.folder.parent} were ranked by "
                             f"{', '.join(result.draws)}, not by {self.metric}; give --metric or another --name")
        return result

    def _round(self, trials: Sequence[Trial]) -> list[TrialResult]:
        """Train every trial, then score all of them in one pass over the frames."""
        names = [self.name(trial) for trial in trials]
        results = [TrialResult(name=name, settings=trial.settings, seed=trial.seed)
                   for name, trial in zip(names, trials)]
        for index, trained in self.workers.each("train", list(zip(trials, names))):
            results[index] = (replace(results[index], error=trained.error) if isinstance(trained, Failure)
                              else replace(results[index], **trained))
        score = self._from_cache if self.flags.rank_from_cache else self._scored
        scored_from = "query cache" if self.flags.rank_from_cache else "frames"
        cards = score({result.name: trial for result, trial in zip(results, trials) if not result.error})
        results = [result if result.error else self._with_scores(result, cards[result.name]) for result in results]
        for result in results:
            # First: a trial that is on disk is not run again, and one that is logged twice is found by its name.
            self.tracker.trial(result.name, numbers=result.numbers, error=result.error,
                               parameters={**dict(setting.partition("=")[::2] for setting in result.settings),
                                           "seed": str(result.seed), "scored_from": scored_from})
            if not result.error:
                self.records.write(result)
        self.count += len(results)
        return results

    def on_frames(self, best: TrialResult) -> dict[str, float | None]:
        """The scores of the best trial on the frames."""
        cards = self._scored({best.name: Trial(best.settings, best.seed)})
        return numbers(Scorecard.sum_of(cards[best.name].values()))

    def _from_cache(self, trials: dict[str, Trial]) -> dict[str, dict[str, Scorecard] | Failure]:
        """Name of a trial -> video -> the estimate of its scorecard; or why it has none."""
        names = list(trials)
        cards: dict[str, dict[str, Scorecard] | Failure] = {}
        for index, scored in self.workers.each("estimate", [(name, trials[name]) for name in names]):
            cards[names[index]] = scored if isinstance(scored, Failure) else {
                video: Scorecard.from_json(card) for video, card in scored.items()}
        return cards

    def _scored(self, trials: dict[str, Trial]) -> dict[str, dict[str, Scorecard]]:
        """Name of a trial -> video -> its scorecard. Raises ValueError where nothing can be scored."""
        cards: dict[str, dict[str, Scorecard]] = {name: {} for name in trials}
        if not trials:
            return cards
        skipped = []
        for _, scored in self.workers.each("score", [(video, trials) for video in range(len(self.videos))]):
            if isinstance(scored, Failure):
                raise ValueError(f"the trials cannot be scored: {scored.error}")
            skipped += [scored["skipped"]] if "skipped" in scored else []
            for name, card in scored["cards"].items():
                cards[name][scored["video"]] = Scorecard.from_json(card)
        for message in skipped:
            say(f"skipped: {message}")
        if not next(iter(cards.values())):
            raise ValueError(f"no video of the split {self.recipe.evaluation.split!r} could be scored; set "
                             "evaluation.split to one with labels")
        return cards

    def _with_scores(self, result: TrialResult, cards: dict[str, Scorecard] | Failure) -> TrialResult:
        if isinstance(cards, Failure):
            return replace(result, error=cards.error)
        total = Scorecard.sum_of(cards.values())
        return replace(result, numbers=numbers(total), draws=resampled(cards, [self.metric]))

    def _progress(self, total: int, done: int) -> None:
        seconds = time.perf_counter() - self.started
        left = seconds / done * (total - done)
        say(f"{done} of {total} new trials | {3600 * done / seconds:.0f} trials/h | left {left / 60:.1f} min")


def best_trial(rows: Sequence[Row], results: Sequence[TrialResult], metric: str) -> TrialResult | None:
    """The best seed of the best setting; None where every trial failed."""
    if not rows or not rows[0].seeds:
        return None
    scored = [result for result in results if result.settings == rows[0].settings and not result.error]
    return best_of(scored, metric)


def keep_best(best: TrialResult | None, sweep: Sweep, folder: Path, tracker: Tracker) -> None:
    """Register the best model and delete the others."""
    sweep.records.drop_models(keep=[] if best is None else [best.name])
    if best is None:
        return
    model = head_folder(folder / "trials", best.name)
    if not (model / "model.json").is_file():        # an earlier call deleted it when another trial was the best
        say("the best model of all trials was not kept by an earlier call; it is trained again")
        for _, trained in sweep.workers.each("train", [(Trial(best.settings, best.seed), best.name)]):
            if isinstance(trained, Failure):
                raise ValueError(f"the best trial cannot be trained again: {trained.error}")
    tracker.file(model, "checkpoint")
    tracker.register("cross_clip_head", "checkpoint", lineage(model))


def frames_lines(best: TrialResult | None, on_frames: dict[str, float | None], metric: str) -> Iterator[str]:
    """How far the estimate of the best trial is from its score on the frames."""
    if best is not None and on_frames:
        yield (f"the scores are estimates from the query cache; on the frames, the first row has {metric} "
               f"{on_frames[metric]:.2f} where the estimate is {best.numbers[metric]:.2f}")


def closing_lines(recipe: Recipe, folder: Path, best: TrialResult | None) -> Iterator[str]:
    """Where everything lies, and the command that evaluates the best model."""
    yield f"everything in {folder}"
    if best is not None:
        where = (f"folder={folder / 'trials' / best.name}", f"stage_one_from={recipe.stage_one_run}")
        trial = Trial(best.settings, best.seed)
        yield command_line(trial.recipe(recipe), "evaluate", *where, "evaluation.mode=offline")


if __name__ == "__main__":
    run(main, flags=SweepFlags, uses=("actors",))
