"""`make demo`: a whole run on this machine, from nothing to a scored and drawn video model, in a few minutes.

    synthetic world -> make_shards -> (score the untrained model) -> train_stage_one -> evaluate near-online
                    -> cache_queries -> train_stage_two -> evaluate offline (where a cross-clip head makes the results)
                    -> evaluate with learned links (where stage_two.links trains them), near-online and offline
                    -> report

Leaves runs/demo/summary.json and report.html beside everything the verbs leave. Starting it again continues what is
unfinished.

    python -m jobs.demo                  # recipe `demo`
    python -m jobs.demo --recipe synthetic
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from jobs import cache_queries, evaluate, make_shards, report, train_stage_one, train_stage_two
from jobs.cluster import connect
from jobs.console import say
from jobs.counted_classes import with_counted_classes
from jobs.evaluate import points
from jobs.models import open_system
from jobs.recipes.schema import Recipe
from jobs.verb import command_line, run
from model.association import LinksConfig
from model.contracts import VideoResults
from pipeline import store
from pipeline.clips import StoredVideoSource
from pipeline.files import atomic_write
from pipeline.one_pass import predict_together
from pipeline.shards import ShardSet
from pipeline.visualise.drawing import draw
from pipeline.visualise.painted import pictured

# What the summary says of each result; the first number is also the score of the untrained model.
HEADLINES = {"panoptic": ("vpq", "vpq_thing", "vpq_stuff", "vpq_by_window", "aq", "idf1", "switches"),
             "tracks": ("ap", "ap50", "ap75", "ar1", "ar10", "track_idf1", "track_switches"),
             "semantic": ("miou", "mvc8")}


# The rows of the table.
TITLES = {"untrained": "untrained", "near_online": "near-online", "offline": "offline",
          "near_online_links": "near-online, links", "offline_links": "offline, links"}


def main(recipe: Recipe) -> dict[str, Any]:
    """Every verb in order; returns what `summary.json` holds."""
    started = time.perf_counter()
    connect(recipe.cluster)
    announce("make_shards", started)
    make_shards.main(recipe)
    recipe = with_counted_classes(recipe)
    announce("evaluate, untrained", started)
    untrained = evaluate.main(scored(recipe, "untrained"))
    announce("train_stage_one", started)
    train_stage_one.main(recipe)
    announce("evaluate, near-online", started)
    modes = {"untrained": untrained, "near_online": evaluate.main(scored(recipe, "near_online"))}
    if recipe.stage_two is not None:
        announce("cache_queries", started)
        cache_queries.main(recipe)
        announce("train_stage_two", started)
        train_stage_two.main(recipe)
    if "offline" in recipe.modes:
        announce("evaluate, offline", started)
        modes["offline"] = evaluate.main(scored(recipe, "offline"))
    compared = None
    for mode in recipe.modes if has_links(recipe) else ():
        announce(f"evaluate, {mode.replace('_', '-')} with links", started)
        modes[f"{mode}_links"] = evaluate.main(with_links(scored(recipe, mode)))
        compared = compared or draw_compared(recipe)
    announce("report", started)
    page = report.main(recipe)
    last = list(modes.values())[-1]
    numbers = [name for result in recipe.inference.results for name in HEADLINES[result]]
    summary = {
        "seconds": round(time.perf_counter() - started, 1), "untrained": {numbers[0]: untrained[numbers[0]]},
        **{mode: {name: scores[name] for name in numbers} for mode, scores in modes.items() if mode != "untrained"},
        "overlay": compared or next(iter(last["overlays"]), None), "mlflow_run_id": last["mlflow_parent_run_id"],
        "report": page["report"],
    }
    atomic_write(recipe.run_folder / "summary.json", store.shown(json.dumps(summary, indent=1) + "\n").encode())
    closing(recipe, summary, last["tracking_uri"])
    return summary


def flat(scores: dict[str, Any]) -> dict[str, float | None]:
    """Column -> number; VPQ of each window gets a column."""
    windows = {f"k={window}": value for window, value in scores.get("vpq_by_window", {}).items()}
    return {name: value for name, value in scores.items() if name != "vpq_by_window"} | windows


def scored(recipe: Recipe, mode: str) -> Recipe:
    """The same recipe, evaluated in one mode."""
    return replace(recipe, evaluation=replace(recipe.evaluation, mode=mode))


def has_links(recipe: Recipe) -> bool:
    """Whether stage two trains learned links."""
    return recipe.stage_two is not None and recipe.stage_two.links is not None


def with_links(recipe: Recipe) -> Recipe:
    """The same recipe with queries reordered by learned links."""
    return replace(recipe, inference=replace(recipe.inference, association=LinksConfig()))


def draw_compared(recipe: Recipe) -> str | None:
    """The first scored video near-online without and with links, beside each other; None where overlays are off."""
    if not recipe.evaluation.overlays:
        return None
    shards = ShardSet(recipe.shards_of(recipe.evaluation.split))
    stored = shards.videos[0]
    source = StoredVideoSource(shards, stored)
    linked = open_system(with_links(recipe), "near_online", shards.classes)
    plain = replace(linked, links=None, inference=recipe.inference)
    results = predict_together([plain, linked], source)
    versions = {title: pictured(result, shards.classes) for title, result in zip(("near-online", "links"), results)}
    truth = VideoResults(panoptic=shards.truth(stored) if "panoptic" in recipe.inference.results else None,
                         tracks=shards.truth_tracks(stored) if "tracks" in recipe.inference.results else None)
    folder = recipe.run_folder / "scores" / "links_compared"
    return str(draw(source, versions, shards.classes, folder, truth=pictured(truth, shards.classes)))


def announce(verb: str, started: float) -> None:
    """A heading with the time that has passed."""
    say("", f"=== {verb} ({time.perf_counter() - started:.0f} s)")


def closing(recipe: Recipe, summary: dict[str, Any], tracking_uri: str | None) -> None:
    """What was reached, where it lies, and what to do next."""
    columns = {mode: flat(summary[mode]) for mode in TITLES if mode in summary}
    say("", f"{'':22}" + "".join(f"{name:>10}" for name in columns["near_online"]))
    for mode, scores in columns.items():
        say(f"{TITLES[mode]:22}" + "".join(f"{points(score):>10}" for score in scores.values()))
    record = [f"MLflow run {summary['mlflow_run_id']}: mlflow ui --backend-store-uri {tracking_uri}"]
    say("", f"{summary['seconds']:.0f} s in all; summary: {recipe.run_folder / 'summary.json'}",
        f"overlay video: {summary['overlay']}", f"report: {summary['report']} (open it in a browser)",
        *(record if tracking_uri else []),
        command_line(recipe, "predict", "predict.input=your_video.mp4"))


if __name__ == "__main__":
    run(main, default_recipe="demo", uses=("tasks", "workers", "pool"))
