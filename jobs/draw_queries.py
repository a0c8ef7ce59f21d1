"""Draw where on the frame each query finds its segments, things and stuff apart: Video-kMaX's figure of its queries.

In:     shards of evaluation.split, and the finished segmenter of a recipe that merges panoptic segments query by query.
Out:    <folder>/queries: locations.png (a point for each query: the mean centre of its segments over the split; the
        larger the point, the more segments) and locations.json.
        A video that cannot be read is skipped, named and counted.
Again:  drawn anew.
Cost:   one pass of the segmenter over the split.

    python -m jobs.draw_queries --recipe demo
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jobs.cluster import connect, results_of
from jobs.console import say
from jobs.models import open_system
from jobs.recipes.schema import Recipe
from jobs.verb import run
from pipeline.at_work import alone_in
from pipeline.clips import StoredVideoSource
from pipeline.errors import BadInput
from pipeline.files import atomic_write
from pipeline.outcomes import Outcomes, VideoOutcome
from pipeline.progress import Progress, Report, Watch, unwatched
from pipeline.query_locations import STUFF, THINGS, query_locations
from pipeline.shards import ShardSet

KINDS = {"things": THINGS, "stuff": STUFF}


class LocateQueries:
    """Ray Data actor: one video in, the sums of its queries' locations out."""

    def __init__(self, *, recipe: Recipe, report: Report = unwatched) -> None:
        self.strict = recipe.strict
        self.report = report
        self.shards = ShardSet(recipe.shards_of(recipe.evaluation.split))
        self.system = open_system(recipe, "near_online", self.shards.classes)

    def __call__(self, *, video: int) -> dict[str, Any]:
        """The outcome as JSON, and `sums`; see `query_locations`."""
        stored = self.shards.videos[video]
        with Watch(stored.video_id, self.report) as watch:
            try:
                sums = query_locations(self.system, StoredVideoSource(self.shards, stored), watch=watch)
            except BadInput as error:
                if self.strict:
                    raise
                return {"sums": None, **VideoOutcome.skip(stored.video_id, error).to_json()}
        return {"sums": sums.tolist(), **VideoOutcome(video=stored.video_id, frames=len(stored.frames)).to_json()}


def main(recipe: Recipe) -> dict[str, Any]:
    """Draw the split; returns where the files lie, and how many queries have a segment of each kind."""
    folder = recipe.run_folder / "queries"
    with alone_in(folder, "jobs.draw_queries"):
        shards = ShardSet(recipe.shards_of(recipe.evaluation.split))
        connect(recipe.cluster)
        total = 0
        with Progress("locating", len(shards.videos)) as progress:
            outcomes = Outcomes(progress)
            rows = [{"video": video} for video in range(len(shards.videos))]
            for row in results_of(LocateQueries, rows, arguments={"recipe": recipe}, cluster=recipe.cluster,
                                  report=progress.report):
                sums = row.pop("sums")
                outcomes.add([VideoOutcome.from_json(row)])
                total = total if sums is None else total + np.array(sums)
            outcomes.refuse_nothing_done(shards.folder)
        locations = {kind: mean_locations(total[index]) for kind, index in KINDS.items()}
        atomic_write(folder / "locations.json", json.dumps(locations, indent=1).encode())
        draw_locations(locations, folder / "locations.png")
    counts = {kind: len(queries) for kind, queries in locations.items()}
    say(*outcomes.skipped_lines(), f"{counts['things']} queries find things and {counts['stuff']} find stuff in "
        f"{len(outcomes.done)} videos: {folder / 'locations.png'}")
    return {"folder": str(folder), "videos": len(outcomes.done), "skipped": len(outcomes.skipped), **counts}


def mean_locations(sums: np.ndarray) -> list[dict[str, float]]:
    """sums: queries 3 -> the queries with a segment, their x and y in fractions of the frame, and how many segments."""
    return [{"query": query, "x": x / count, "y": y / count, "segments": int(count)}
            for query, (x, y, count) in enumerate(sums.tolist()) if count]


def draw_locations(locations: dict[str, list[dict[str, float]]], path: Path) -> None:
    """One frame for each kind, and a point for each query."""
    from matplotlib.figure import Figure  # seconds to import, and needed once

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, (kind, queries) in zip(figure.subplots(1, len(locations)), locations.items()):
        largest = max((query["segments"] for query in queries), default=1)
        axes.scatter([query["x"] for query in queries], [query["y"] for query in queries],
                     s=[8 + 72 * query["segments"] / largest for query in queries], alpha=0.6, color="#0072b2")
        axes.set(title=f"{len(queries)} queries with {kind}", xlim=(0, 1), ylim=(1, 0), xlabel="part of the width",
                 ylabel="part of the height")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run(main, default_recipe="demo", uses=("pool",))
