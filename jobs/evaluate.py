"""Score a split: video panoptic quality (VPQ) of the segmenter, with the cross-clip head, or of predictions on disk.

In:     shards of the split, and models (evaluation.mode = untrained, near_online, offline) or evaluation.predictions.
Out:    <folder>/scores/<mode>: scores.json, classes.json, predictions in VIPSeg's evaluation layout, overlay videos.
        Another association than hungarian has its own folder, <mode>_<association>.
Again:  the split is scored again; re-scoring predictions on disk (evaluation.predictions) runs no network.
Cost:   one pass of inference over the split.

    python -m jobs.evaluate --recipe tiny
    python -m jobs.evaluate --recipe tiny --set evaluation.mode=offline
    python -m jobs.evaluate --recipe tiny --set 'evaluation.association={"name": "memory_buffer"}'
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.config import to_json
from jobs.inference import System, draw, open_system
from jobs.recipes.schema import Recipe
from jobs.training.progress import say
from jobs.verb import connect, recorded, run
from model.association import HungarianConfig
from model.association.linker import MatchingSpace
from pipeline.errors import BadInput
from pipeline.files import atomic_write, digest
from pipeline.metrics.vpq import VPQ
from pipeline.metrics.vpq_scores import PROTOCOLS, VPQScores
from pipeline.predictions import Predictions, PredictionWriter, read_predictions
from pipeline.progress import Progress
from pipeline.shards import ShardSet
from pipeline.streams import actor_stream
from pipeline.video_clips import StoredVideoSource


def main(recipe: Recipe) -> dict[str, Any]:
    """Score every video of the split on the cluster, merge, print, record; returns the headline numbers."""
    config, folder = recipe.evaluation, scores_folder(recipe)
    shards = ShardSet(recipe.shards_of(config.split))
    # A missing or foreign model, or predictions of something else, stop here, not on a worker.
    system = None if stored_predictions(recipe) else open_system(recipe, config.mode, shards.classes)
    writer = prediction_writer(recipe, system, shards)
    connect(recipe.cluster)
    folder.mkdir(parents=True, exist_ok=True)
    metric, skipped, frames, started = VPQ(shards.classes, windows=config.windows), [], 0, time.perf_counter()
    matching = MatchingSpace()
    with recorded(recipe, f"evaluate_{folder.name}", shards=shards.fingerprint) as tracker:
        with Progress("evaluating", len(shards.videos)) as progress:
            for video in actor_stream([{"video": v.index} for v in shards.videos], ScoreVideo,
                                      arguments={"recipe": recipe}, actors=recipe.cluster.actors,
                                      cpus=recipe.cluster.cpus_per_actor, gpus=recipe.cluster.gpus_per_actor):
                if "skipped" in video:
                    skipped.append(video)
                else:
                    metric.merge(VPQ.from_json(video["vpq"]))
                    matching.merge(MatchingSpace(**video["matching"]))
                    frames += video["frames"]
                progress.update("skipped" not in video, Counter(v["reason"] for v in [video] if "skipped" in v))
        if writer is not None:
            writer.finish(v.video_id for v in shards.videos if v.video_id not in {s["video"] for s in skipped})
        seconds, scores = time.perf_counter() - started, metric.result()
        summary = {"mode": folder.name, **summarise(scores), "videos": len(shards.videos) - len(skipped),
                   "frames": frames, "skipped": skipped, "frames_per_second": frames / seconds,
                   "matching_space": matching.summary(),
                   "overlays": sorted(map(str, folder.glob("overlays/*.mp4")))}
        atomic_write(folder / "scores.json", json.dumps(summary, indent=1).encode())
        atomic_write(folder / "classes.json", json.dumps(scores.class_rows(), indent=1).encode())
        record(tracker, folder, summary)
    say(scores.table(), *(f"skipped: {video['skipped']}" for video in skipped),
        f"{folder.name}: {points(summary['vpq'])} VPQ over {summary['videos']} videos; everything in {folder}")
    return {**summary, "tracking_uri": tracker.handle.uri, "mlflow_run_id": tracker.handle.run_id,
            "mlflow_parent_run_id": tracker.handle.parent_id}


def points(value: float | None) -> str:
    """A score for people; "no" where every video was too short for one of the windows."""
    return "no" if value is None else f"{value:.1f}"


def scores_folder(recipe: Recipe) -> Path:
    """Where the scores of a mode lie."""
    config = recipe.evaluation
    linked = "" if isinstance(config.association, HungarianConfig) else f"_{config.association.name}"
    return recipe.road / "scores" / ("predictions" if config.predictions else config.mode + linked)


def stored_predictions(recipe: Recipe) -> Predictions | None:
    """The predictions to score instead of running a model, when the recipe names some."""
    return read_predictions(Path(recipe.evaluation.predictions)) if recipe.evaluation.predictions else None


def prediction_writer(recipe: Recipe, system: System | None, shards: ShardSet) -> PredictionWriter | None:
    """Where predictions are kept, one folder per system, so that those of another model are never mixed in."""
    if system is None or not recipe.evaluation.keep_predictions:
        return None
    made_by = {**system.made_by, "shards_fingerprint": shards.fingerprint, "merge": to_json(system.merge)}
    folder = scores_folder(recipe) / "predictions" / digest(made_by)[:16]
    return PredictionWriter(folder=folder, classes=shards.classes, made_by=made_by)


def summarise(scores: VPQScores) -> dict[str, Any]:
    """The headline numbers, in points: VPQ over windows 1, 2, 4, 6, and with 8 where it was scored."""
    first = scores.summary(PROTOCOLS[0])
    with_eight = set(PROTOCOLS[1]) <= scores.per_class.keys()
    return {**first, **({"vpq_with_8": scores.summary(PROTOCOLS[1])["vpq"]} if with_eight else {})}


def record(tracker, folder: Path, summary: dict[str, Any]) -> None:
    """Numbers and files of one evaluation, into MLflow."""
    numbers = {name: summary[name] for name in ("vpq", "vpq_thing", "vpq_stuff", "frames_per_second")}
    numbers |= {f"vpq_k{window}": value for window, value in summary["vpq_by_window"].items()}
    numbers |= {f"matching_space_{name}": value for name, value in summary["matching_space"].items()}
    tracker.numbers(0, {name: value for name, value in numbers.items() if value is not None})
    for name in ("scores.json", "classes.json"):
        tracker.file(folder / name)
    for video in summary["overlays"][:1]:
        tracker.file(Path(video), "overlays")


class ScoreVideo:
    """Ray Data actor: one video in, its share of the score out; predictions and overlays go to disk on the way."""

    def __init__(self, *, recipe: Recipe) -> None:
        self.recipe, self.config, self.folder = recipe, recipe.evaluation, scores_folder(recipe)
        self.shards = ShardSet(recipe.shards_of(self.config.split))
        self.predictions = stored_predictions(recipe)
        self.system = None if self.predictions else open_system(recipe, self.config.mode, self.shards.classes)
        self.writer = prediction_writer(recipe, self.system, self.shards)

    def __call__(self, *, video: int) -> dict[str, Any]:
        """The accumulated metric of one video as JSON, or why it was skipped."""
        stored, matching = self.shards.videos[video], MatchingSpace()
        source = StoredVideoSource(self.shards, stored)
        try:
            predicted = (self.system.predict(source, matching=matching) if self.system
                         else self.predictions[stored.video_id])
            metric = VPQ(self.shards.classes, windows=self.config.windows)
            metric.update(predicted, self.shards.truth(stored))
        except BadInput as error:
            return {"video": stored.video_id, "skipped": str(error), "reason": error.reason}
        except KeyError:
            return {"video": stored.video_id, "skipped": f"video {stored.video_id!r} has no prediction in "
                    f"{self.config.predictions}", "reason": "no-prediction"}
        if self.writer is not None:
            self.writer.write(predicted)
        if video < self.config.overlays:
            draw(source, predicted, self.shards.classes, self.folder / "overlays", truth=self.shards.truth(stored))
        return {"video": stored.video_id, "vpq": metric.to_json(), "frames": len(stored.frames),
                "matching": asdict(matching)}


if __name__ == "__main__":
    run(main)
