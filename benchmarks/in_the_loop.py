"""The score of a head trained from the query cache, and of the same head with the segmenter in the loop.

    python -m benchmarks.in_the_loop --recipe demo                       # the run in runs/demo; an hour or two
    python -m benchmarks.in_the_loop --recipe demo --ways 0 1 --seeds 1  # some rows of the table

In the loop, windows are made from frames, with all pixels in single precision, and kept in memory; with fresh
augmentation a window is another view at each draw, and nothing is kept. The caches differ in stored pixels and in
views. Each way is trained with the same seeds and scored on the validation split. Every row is written when it is
finished, and those that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Results
from benchmarks.query_cache import fill_cache, prepare, toy_recipe
from benchmarks.rows import commit, machine
from jobs.cache_queries import CacheShard, cache_folder
from jobs.config import override
from jobs.evaluate import scorecard, scored_part, true_results
from jobs.models import load_segmenter, open_system
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.train_stage_two import open_cache, stage_on
from jobs.training.trainer import train_in_memory
from jobs.verb import resolved
from pipeline.clips import StoredVideoSource
from pipeline.metrics.scorecard import headline
from pipeline.query_cache import CachedClip, ViewTable
from pipeline.shards import ShardSet


class InTheLoop:
    """What `query_batches` reads of a cache, made from the frames of the training split whenever it is read."""

    def __init__(self, recipe: Recipe, *, fresh: bool) -> None:
        """fresh: another augmented view at every read; else the view of test time."""
        dense = override(recipe, ["cache.evidence.strategy=dense"])
        self.folder = recipe.run_folder
        self.fresh = fresh
        self.reads = 0
        self.shards = ShardSet(recipe.shards_of("train"))
        self.actor = CacheShard(recipe=dense)
        self.labelled = [video for video in self.shards.videos if video.has_labels]
        length = self.actor.system.clip_length
        self.manifest = {"made_from": {"clip_frames": length}}
        frames = [len(video.frames) for video in self.labelled]
        self.groups = ViewTable.from_columns({
            "video": [video.video_id for video in self.labelled], "view": [int(fresh)] * len(frames),
            "part": [0] * len(frames), "group": range(len(frames)), "clips": [-(-count // length) for count in frames],
            "frames": frames, "full": [count // length for count in frames]})
        self.videos = self.groups.videos

        self._made: dict[int, list[CachedClip]] = {}    # without augmentation, a video gives the same clips again

    def read(self, group: int) -> list[CachedClip]:
        """The clips of a video."""
        if group in self._made:
            return self._made[group]
        self.reads += 1
        clips = self.actor.clips(self.shards, self.labelled[group], self.reads if self.fresh else 0)
        if not self.fresh:
            self._made[group] = clips
        return clips


@dataclass(frozen=True, kw_only=True)
class Way:
    """Where the batches of a training come from: a cache with these settings, or frames."""

    name: str
    cache: tuple[str, ...] = ()
    in_the_loop: bool = False
    fresh: bool = False         # augmentation, in the loop

    def source(self, recipe: Recipe) -> Any:
        """The cache, which is made where it is not there yet, or what takes its place."""
        if self.in_the_loop:
            return InTheLoop(recipe, fresh=self.fresh)
        recipe = override(recipe, self.cache)
        if not (cache_folder(recipe) / "manifest.json").is_file():
            fill_cache(recipe)
        return open_cache(recipe)


def _pixels(pixels: int, strategy: str, *, in_8_bits: bool = False, views: int = 1) -> tuple[str, ...]:
    return (f"cache.evidence.pixels={pixels}", f"cache.evidence.strategy={strategy}", f"cache.views={views}",
            f"cache.features_in_8_bits={str(in_8_bits).lower()}")


WAYS = (Way(name="in the loop, all pixels", in_the_loop=True),
        Way(name="256 mixed, 8 bits", cache=_pixels(256, "mixed", in_8_bits=True)),
        Way(name="128 balanced, 16 bits", cache=_pixels(128, "balanced")),
        Way(name="32 balanced, 16 bits", cache=_pixels(32, "balanced")),
        Way(name="in the loop, fresh augmentation", in_the_loop=True, fresh=True),
        *(Way(name=f"256 mixed, 8 bits, {views} views", cache=_pixels(256, "mixed", in_8_bits=True, views=views))
          for views in (2, 4)))

MEASURES = ("jobs/train_stage_two.py", "pipeline/query_cache/batches.py", "pipeline/query_cache/pixel_evidence.py")


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is trained with an untrained segmenter."""

    ways: tuple[Way, ...]


TOY = tuple(replace(way, cache=tuple(setting.replace("256", "48") for setting in way.cache)) for way in WAYS)
SIZES = {"toy": Size(ways=(TOY[0], TOY[1], TOY[4], TOY[5]))}        # full: see `main`


def run(size: Size, results: Results) -> None:
    """The scores with an untrained segmenter."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = prepare(toy_recipe(folder), splits=("train", "val"))
        for row in measured(recipe, Path(folder) / "scores", ways=size.ways, seeds=1):
            results.add(f"{recipe.name}, {row['way']}", row["score"], row["number"], row=row)


def main() -> None:
    """Train and score what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--folder", default="", help="folder of the run; the recipe's own by default")
    parser.add_argument("--output", default="runs/evidence", help="folder of the rows")
    parser.add_argument("--ways", type=int, nargs="+", default=range(len(WAYS)),
                        help="; ".join(f"{index}: {way.name}" for index, way in enumerate(WAYS)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="of a training; the recipe's own by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = resolved(replace(find_recipe(arguments.recipe), folder=arguments.folder))
    if arguments.steps:
        recipe = override(recipe, [f"stage_two.fit.steps={arguments.steps}"])
    rows = []
    for row in measured(recipe, Path(arguments.output), ways=[WAYS[index] for index in arguments.ways],
                        seeds=arguments.seeds):
        print(f"{row['way']:<36} seed {row['seed']}: {row['number']} {row['score']:.2f}, loss {row['loss']:.3f}",
              flush=True)
        rows.append(row)
    print(*table(rows), sep="\n")


def measured(recipe: Recipe, output: Path, *, ways: Sequence[Way], seeds: int) -> Iterator[dict[str, Any]]:
    """The rows of a run, those from `output` and new ones, which are added to its file."""
    file = output / f"scores_{recipe.name}.jsonl"
    there = [json.loads(row) for row in file.read_text().splitlines()] if file.is_file() else []
    steps = recipe.stage_two.fit.steps
    known = {(row["way"], row["seed"]): row for row in there if row["steps"] == steps}
    output.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for way in ways:
            if (row := known.get((way.name, seed))) is None:
                row = {"recipe": recipe.name, "way": way.name, "seed": seed, "steps": steps,
                       **trained_and_scored(recipe, way, seed),
                       "machine": machine(), "commit": commit(), "date": datetime.now(UTC).isoformat("T", "seconds")}
                with file.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
            yield row


def trained_and_scored(recipe: Recipe, way: Way, seed: int) -> dict[str, Any]:
    """Train the recipe's head and score it offline on the validation split; its last loss and its first score."""
    recipe = override(recipe, [f"stage_two.fit.seed={seed}", f"stage_two.input.seed={seed}"])
    source = way.source(recipe)
    segmenter, _ = load_segmenter(recipe.segmenter_folder)
    weights, reports = train_in_memory(
        lambda: stage_on(recipe, recipe.stage_two.head.build(), source, segmenter), recipe.stage_two.fit,
        device=torch.device("cpu"))
    number, score = score_of(recipe, weights)
    return {"number": number, "score": score, "loss": sum(reports[-1].losses.values())}


def score_of(recipe: Recipe, weights: dict[str, Tensor]) -> tuple[str, float]:
    """Name and value of the first score of a head."""
    shards = ShardSet(recipe.shards_of(recipe.evaluation.split))
    head = recipe.stage_two.head.build()
    head.load_state_dict(weights)
    system = replace(open_system(recipe, "near_online", shards.classes), head=head.eval())
    card = scorecard(recipe, shards.classes)
    for video in shards.videos:
        if (truth := true_results(recipe, shards, video)) is not None:
            card.update(scored_part(system.predict(StoredVideoSource(shards, video)), video), truth)
    scores = headline(card.scores())
    name = next(name for name in ("vpq", "ap", "miou") if name in scores)
    return name, scores[name]


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Means over seeds, and the differences to the first way of the same seeds: mean, lowest and highest."""
    scores: dict[str, dict[int, float]] = {}
    for row in rows:
        scores.setdefault(row["way"], {})[row["seed"]] = row["score"]
    first = next(iter(scores.values()))
    yield f"{'way':<36}{'score':>8}{'difference':>12}{'lowest':>8}{'highest':>8}{'seeds':>7}"
    for name, by_seed in scores.items():
        differences = [score - first[seed] for seed, score in by_seed.items()]
        yield (f"{name:<36}{mean(by_seed.values()):>8.2f}{mean(differences):>+12.2f}{min(differences):>+8.2f}"
               f"{max(differences):>+8.2f}{len(by_seed):>7}")


if __name__ == "__main__":
    main()
