"""Runs what a table lacks: data, segmenters, caches, heads and scores, each once for all rows that share it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs import cache_queries, evaluate, longest_video, make_shards, profile, train_stage_one, train_stage_two
from jobs.cache_queries import cache_folder
from jobs.console import say
from jobs.evaluate import scores_folder
from jobs.recipes.schema import Recipe
from jobs.reproducing.plan import RowRun, first_of_each
from jobs.reproducing.scores import counted, read_scores
from jobs.sweeping.ranking import TrialResult
from jobs.sweeping.results import TrialRecords
from jobs.sweeping.workers import Failure, Workers
from jobs.training.tracker import Tracker
from pipeline.files import atomic_write
from pipeline.foreign_files import open_regular

Call = Callable[[], Any]


class RowWorker:
    """Runs the verbs of rows, one after the other, in the process that it lives in."""

    def __init__(self, quiet: bool) -> None:
        """quiet: this process makes whole runs. The output of the verbs goes into `log.txt` of the folder of each run,
        and their seconds are those of its processor, which other work on the machine hardly changes."""
        self.quiet = quiet
        self.clock = time.process_time if quiet else time.perf_counter

    def data(self, recipe: Recipe) -> float:
        """Draw the world and make the shards of a recipe in their own folder; returns the seconds, like the others."""
        folder = recipe.shards_run
        alone = replace(recipe, folder=str(folder), stage_one_from="", shards_from="")
        return self._timed("make_shards", folder, lambda: make_shards.main(alone))

    def stage_one(self, recipe: Recipe) -> float:
        """Train the segmenter."""
        folder = recipe.stage_one_run
        alone = replace(recipe, folder=str(folder), stage_one_from="")
        return self._timed("train_stage_one", folder, lambda: train_stage_one.main(alone))

    def cache(self, recipe: Recipe) -> float:
        """Cache the queries of the segmenter."""
        return self._timed("cache_queries", recipe.run_folder, lambda: cache_queries.main(recipe))

    def stage_two(self, recipe: Recipe) -> float:
        """Train the head and the links."""
        return self._timed("train_stage_two", recipe.run_folder, lambda: train_stage_two.main(recipe))

    def score(self, run: RowRun, metrics: Sequence[str]) -> dict[str, Any]:
        """Score a row with one seed: the numbers, the draws and the seconds of a TrialResult."""
        started = self.clock()
        recipe = run.recipe
        if run.row.profile is not None:
            size = run.row.profile
            with self._output(recipe.run_folder):
                network = profile.main(recipe, size=size.size, clip_frames=size.clip_frames, repeats=0)["segmenter"]
            numbers, draws = counted({name: network[name]["total"] for name in ("parameters_m", "gflops")})
        elif run.row.longest is not None:
            limit = run.row.longest
            with self._output(recipe.run_folder):
                found = longest_video.main(recipe, gigabytes=limit.gigabytes, size=limit.size)
            numbers, draws = counted({"max_frames": found["max_frames"]})
        else:
            with self._output(recipe.run_folder):
                summary = evaluate.main(recipe)
            numbers, draws = read_scores(scores_folder(recipe), summary, metrics)
        return {"numbers": numbers, "draws": draws, "seconds": self.clock() - started}

    def _timed(self, name: str, folder: Path, call: Call) -> float:
        """Call a verb; the seconds that it took when it was called first, which are kept in the folder."""
        started = self.clock()
        with self._output(folder):
            call()
        path = folder / f"{name}.seconds.json"
        with contextlib.suppress(OSError, ValueError), open_regular(path) as file:
            return float(file.read())       # it may not be there yet, or be cut off by a power cut
        seconds = self.clock() - started
        atomic_write(path, json.dumps(seconds).encode())
        return seconds

    @contextlib.contextmanager
    def _output(self, folder: Path):
        """Where the verbs print to."""
        if not self.quiet:
            yield
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a") as file, contextlib.redirect_stdout(file):
            yield


class TableRuns:
    """Runs the rows of a table that have no result yet."""

    def __init__(self, runs: Sequence[RowRun], metrics: Sequence[str], workers: Workers, records: TrialRecords,
                 tracker: Tracker) -> None:
        self.runs = runs
        self.metrics = metrics
        self.workers = workers
        self.records = records
        self.tracker = tracker
        self.count = 0                          # rows that were scored now
        self.errors: dict[str, str] = {}        # name of a run -> why it cannot be scored
        self.shared: dict[str, float] = {}      # name of a run -> seconds of what it was the first to need
        self.started = time.perf_counter()

    def results(self) -> list[TrialResult]:
        """The result of every run, in their order; those that failed have an error."""
        known = {run.name: self.records.read(run.name) for run in self.runs}
        missing = [run for run in self.runs if known[run.name] is None]
        if len(missing) < len(self.runs):
            say(f"{len(self.runs) - len(missing)} of {len(self.runs)} rows and seeds are finished")
        trained = [run for run in missing if run.row.is_trained]
        headed = [run for run in trained if run.recipe.stage_two is not None]
        starts = [replace(run, recipe=run.start) for run in trained if run.start is not None]
        self._phase("data", [*starts, *trained], lambda run: (run.recipe.shards_run, run.recipe.splits))
        for runs in (starts, trained):
            self._phase("stage_one", runs, lambda run: run.recipe.stage_one_run)
        self._phase("cache", headed, self._cache_of)
        self._phase("stage_two", headed, lambda run: run.recipe.run_folder)
        self._score([run for run in missing if run.name not in self.errors], known)
        return [known[run.name] or TrialResult(name=run.name, settings=(run.row.name,), seed=run.seed,
                                               error=self.errors[run.name]) for run in self.runs]

    def _cache_of(self, run: RowRun) -> Path | None:
        return None if run.name in self.errors else cache_folder(run.recipe)

    def _phase(self, method: str, runs: Sequence[RowRun], key: Callable[[RowRun], Any]) -> None:
        """Call a method of the workers once for each value of `key`; its failure is that of all runs that share it."""
        firsts = first_of_each([run for run in runs if run.name not in self.errors], key)
        pieces = [(run.recipe,) for run in firsts]
        for done, (index, result) in enumerate(self.workers.each(method, pieces), start=1):
            first = firsts[index]
            if isinstance(result, Failure):
                shared = [run for run in runs if run.name not in self.errors and key(run) == key(first)]
                self.errors |= {run.name: f"{method}: {result.error}" for run in shared}
            else:
                self.shared[first.name] = self.shared.get(first.name, 0.0) + result
            self._say(method, done, len(firsts), first, result)

    def _score(self, runs: Sequence[RowRun], known: dict[str, TrialResult | None]) -> None:
        pieces = [(run, self.metrics) for run in runs]
        for done, (index, scored) in enumerate(self.workers.each("score", pieces), start=1):
            run = runs[index]
            result = TrialResult(name=run.name, settings=(run.row.name,), seed=run.seed)
            if isinstance(scored, Failure):
                self.errors[run.name] = f"score: {scored.error}"
                result = replace(result, error=self.errors[run.name])
            else:
                seconds = scored["seconds"] + self.shared.get(run.name, 0.0)
                result = known[run.name] = replace(result, **{**scored, "seconds": seconds})
                self.records.write(result)
                self.count += 1
            self._track(run, result)
            self._say("score", done, len(runs), run, scored)

    def _track(self, run: RowRun, result: TrialResult) -> None:
        self.tracker.trial(f"{run.row.name}, seed {run.seed}", numbers=result.numbers, error=result.error,
                           parameters={"row": run.row.name, "seed": str(run.seed), "folder": run.recipe.folder})

    def _say(self, method: str, done: int, total: int, run: RowRun, result: Any) -> None:
        failed = f" | failed: {result.error}" if isinstance(result, Failure) else ""
        seconds = time.perf_counter() - self.started
        say(f"{method} {done} of {total} | {run.row.name}, seed {run.seed} | {seconds:.0f} s{failed}")
