"""How well a score from the query cache alone ranks heads: against the score on the frames, over many heads.

    python -m benchmarks.cache_score --recipe demo --folder RUN                  # a finished run, up to its cache
    python -m benchmarks.cache_score --recipe demo --folder RUN --heads 40 --pixels 128 512 1024

Heads of different quality are trained from the cache of the run (other rates, layers, starts and numbers of steps), and
scored twice: on the frames of `evaluation.split`, and from caches of that split with some numbers of pixels a clip.
Printed are Spearman's rank correlation, the mean and the largest difference of the two scores, and the seconds that the
estimate takes for each head. Heads and scores on the frames stay in `<run>/cache_score`, so it can be started again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from scipy.stats import spearmanr

from benchmarks.harness import Results
from benchmarks.query_cache import prepare, toy_recipe
from jobs.cache_queries import fill_cache, for_validation
from jobs.cached_validation import numbers, open_scores
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe, ValidationConfig
from jobs.sweeping.plan import Trial, drawn, read_axis
from jobs.sweeping.trials import TrialWorker, head_folder
from jobs.verb import resolved
from pipeline.datasets import open_dataset
from pipeline.files import atomic_write, digest
from pipeline.metrics.scorecard import Scorecard
from pipeline.shards import make_shards

AXES = ("stage_two.optimizer.lr=1e-4..1e-1", "stage_two.head.layers=1,2,3", "stage_two.fit.steps=3,10,30,100",
        "stage_two.head.start=near_online,official", "stage_two.head.attention=trajectory,self")
NUMBERS = ("vpq", "vpq_k1", "vpq_k12", "aq", "idf1", "switches", "ap", "track_idf1", "track_switches")

Numbers = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Heads, and pixels of a clip in each cache that they are scored from."""

    heads: int
    pixels: tuple[int, ...]


MEASURES = ("pipeline/cached_scores.py", "pipeline/query_cache/sampled_video.py")
SIZES = {"toy": Size(heads=2, pixels=(256,))}       # what it measures needs a finished run: see `main`


def main() -> None:
    """Print and store one row for each number of pixels and each score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--folder", required=True, help="of the finished run")
    parser.add_argument("--heads", type=int, default=20)
    parser.add_argument("--pixels", type=int, nargs="+", default=[256, 1024, 2048])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = replace(find_recipe(arguments.recipe), folder=str(Path(arguments.folder).absolute()))
    score_all(resolved(recipe), Size(heads=arguments.heads, pixels=tuple(arguments.pixels)),
              Results("cache_score", measures=MEASURES))


def run(size: Size, results: Results) -> None:
    """The heads of an untrained segmenter."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = prepare(toy_recipe(folder))
        dataset = open_dataset(replace(recipe.dataset, root=str(recipe.data_root), split="val"))
        make_shards(dataset, recipe.shards_of("val"), recipe.shards, split="val")
        score_all(recipe, size, results)


def score_all(recipe: Recipe, size: Size, results: Results) -> None:
    """Print and keep one row for each number of pixels and each score: the largest error, with the rest as detail."""
    recipe = replace(recipe, cluster=replace(recipe.cluster, in_process=True))
    for row in compared(recipe, heads=size.heads, pixels=size.pixels):
        print(line(row), flush=True)
        results.add(f"{recipe.name}, {row['pixels']} pixels, {row['number']}", row["largest_difference"], "points",
                    **row)


def compared(recipe: Recipe, *, heads: int, pixels: Sequence[int]) -> list[dict[str, float | str]]:
    """One row for each number of pixels and each score."""
    folder = recipe.run_folder / "cache_score"
    worker = TrialWorker(recipe, folder)
    trials = {trial.name(recipe, inputs=[worker.cache.fingerprint]): trial for trial in (
        Trial(settings, seed=seed) for seed, settings in enumerate(drawn(list(map(read_axis, AXES)), heads, seed=0)))}
    for name, trial in trials.items():
        if not (head_folder(folder, name) / "model.json").is_file():
            worker.train(trial, name)
    true = on_frames(worker, trials)
    rows = []
    for count in pixels:
        estimated, seconds = from_cache(worker, trials, pixels=count)
        rows += [{"pixels": count, "seconds": seconds, **agreement(true, estimated, number)}
                 for number in NUMBERS if any(score.get(number) is not None for score in true)]
    return rows


def on_frames(worker: TrialWorker, trials: dict[str, Trial]) -> list[Numbers]:
    """The scores of all heads on the frames, video by video for all of them; those of earlier calls are kept."""
    paths = [worker.folder / f"{digest(list(trials))[:16]}-{video.index:06d}.json" for video in worker.shards.videos]
    for path, video in zip(paths, worker.shards.videos):
        if not path.is_file():
            atomic_write(path, json.dumps(worker.score(video.index, trials)["cards"]).encode())
    videos = [json.loads(path.read_text()) for path in paths]
    return [numbers(Scorecard.sum_of(Scorecard.from_json(cards[name]) for cards in videos if cards))
            for name in trials]


def from_cache(worker: TrialWorker, trials: dict[str, Trial], *, pixels: int) -> tuple[list[Numbers], float]:
    """The scores of all heads from a cache with so many pixels a clip, and the seconds for each head."""
    recipe = replace(worker.base, stage_two=replace(worker.base.stage_two, validation=ValidationConfig(pixels=pixels)))
    fill_cache(for_validation(recipe))
    scores = open_scores(recipe)
    systems = [worker.system_of(trial, name) for name, trial in trials.items()]
    started = time.perf_counter()
    cards = [scores.card(system) for system in systems]
    return [numbers(card) for card in cards], (time.perf_counter() - started) / len(systems)


def agreement(true: Sequence[Numbers], estimated: Sequence[Numbers], number: str) -> dict[str, float | str]:
    """How one score from the cache agrees with that on the frames, over the heads that have both."""
    pairs = [(one[number], other[number]) for one, other in zip(true, estimated)
             if one[number] is not None and other[number] is not None]
    differences = [other - one for one, other in pairs]
    some_differ = all(len(set(scores)) > 1 for scores in zip(*pairs))
    return {"number": number, "heads": len(pairs),
            "rank_correlation": float(spearmanr(pairs).statistic) if some_differ else 0.0,
            "lowest": min(one for one, _ in pairs), "highest": max(one for one, _ in pairs),
            "mean_difference": sum(differences) / len(pairs), "largest_difference": max(map(abs, differences))}


def line(row: dict[str, float | str]) -> str:
    """A row as text."""
    return (f"{row['pixels']:>5} pixels | {row['number']:<14} | {row['heads']} heads from {row['lowest']:.1f} to "
            f"{row['highest']:.1f} | rank correlation {row['rank_correlation']:.3f} | estimate - score: mean "
            f"{row['mean_difference']:+.2f}, largest {row['largest_difference']:.2f} | {row['seconds']:.2f} s a head")


if __name__ == "__main__":
    main()
