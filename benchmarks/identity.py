"""Loss of identity over time in the easy and in the hard world, measured as VPQ at windows 1 and 12.

    python -m benchmarks.identity --recipe synthetic_hard                 # models in runs/synthetic_hard
    python -m benchmarks.identity --recipe demo --mode offline

One finished model is scored on 24 held-out videos of 12 frames of each preset. In the hard world, twins hide for longer
than a clip and come out where the other one went in, so the drop from window 1 to window 12 is a loss of identity.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.harness import append, machine
from jobs.models import open_system
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.verb import resolved
from pipeline.clips import StoredVideoSource
from pipeline.datasets import open_dataset
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.metrics.vpq import VPQ
from pipeline.metrics.vpq_scores import VPQScores
from pipeline.shards import ShardSet, make_shards
from pipeline.system import System

# windows, frames
SHORT = 1
LONG = 12


def main() -> None:
    """Print and store the scores of both presets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="synthetic_hard")
    parser.add_argument("--folder", default="", help="folder of the run; the recipe's own by default")
    parser.add_argument("--mode", default="near_online", choices=("near_online", "offline"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = resolved(replace(find_recipe(arguments.recipe), folder=arguments.folder))
    system = open_system(recipe, arguments.mode)
    print(f"{'world':<8}{'VPQ':>8}{'k=1':>8}{'k=12':>8}{'lost':>8}   {arguments.recipe}, {arguments.mode}, {machine()}")
    for preset in ("easy", "hard"):
        scores = score(system, recipe, replace(recipe.world, preset=preset, frames=LONG, videos_train=0, videos_val=24,
                                               seed=recipe.world.seed + 1))
        points = [100 * value for value in (scores.mean().all, scores.of(SHORT).all, scores.of(LONG).all)]
        lost = points[1] - points[2]
        print(f"{preset:<8}" + "".join(f"{value:8.1f}" for value in (*points, lost)), flush=True)
        append({"name": f"identity, {preset} world", "recipe": arguments.recipe, "mode": arguments.mode,
                "vpq": points[0], "vpq_k1": points[1], "vpq_k12": points[2], "lost": lost,
                "machine": machine(), "date": datetime.now(UTC).isoformat(timespec="seconds")})


def score(system: System, recipe: Recipe, world: SyntheticConfig) -> VPQScores:
    """Scores of the system on a new world of held-out videos."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_world(str(Path(folder) / "world"), world)
        dataset = open_dataset(replace(recipe.dataset, root=str(root), split="val"))
        make_shards(dataset, Path(folder) / "shards", recipe.shards, split="val")
        shards = ShardSet(Path(folder) / "shards")
        metric = VPQ(shards.classes, windows=(1, 2, 4, 6, LONG))
        for video in shards.videos:
            metric.update(system.predict(StoredVideoSource(shards, video)).panoptic, shards.truth(video))
        return metric.result()


if __name__ == "__main__":
    main()
