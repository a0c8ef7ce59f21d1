"""Make the report page of a run: one HTML file with its scores, curves, pictures and identity switches.

In:     the shards of the split that is scored, and what the other verbs have left: losses, scores, kept predictions.
Out:    <folder>/report.html, which needs no network and no other file, and the same file in MLflow. docs/report.md says
        what it shows.
Again:  it is made anew.
Cost:   some seconds; pictures are made of a few videos, and no network runs.

    python -m jobs.report --recipe demo
"""

from __future__ import annotations

from typing import Any

from jobs.console import say
from jobs.recipes.schema import Recipe
from jobs.reporting.evaluations import read_evaluations
from jobs.reporting.page import gather, rendered
from jobs.verb import recorded, run
from pipeline.files import atomic_write
from pipeline.shards import ShardSet

PAGE = "report.html"        # in the folder of the run


def main(recipe: Recipe) -> dict[str, Any]:
    """Write the page and log it; returns where it lies. Raises FileNotFoundError without shards."""
    shards = ShardSet(recipe.shards_of(recipe.evaluation.split))
    evaluations = read_evaluations(recipe.scores_root)
    report = gather(recipe, shards, evaluations)
    path = recipe.run_folder / PAGE
    atomic_write(path, rendered(report).encode())
    with recorded(recipe, "report", shards=shards.fingerprint) as tracker:
        tracker.parent_file(path)
    switches = {f"{timeline.title}, {timeline.video}": timeline.switches for timeline in report.timelines}
    say(f"report of {len(evaluations)} evaluations: {path} (open it in a browser)")
    return {"report": str(path), "bytes": path.stat().st_size, "evaluations": [each.name for each in evaluations],
            "switches": switches}


if __name__ == "__main__":
    run(main, default_recipe="demo")
