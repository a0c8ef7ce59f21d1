"""Where the predictions of an evaluation lie, and predictions to score instead of running a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.config import to_json
from jobs.recipes.schema import Recipe
from model.contracts import PanopticVideo, Tracks
from model.labels import ClassTable
from pipeline.datasets import open_dataset
from pipeline.errors import BadInput, Mismatch
from pipeline.files import digest
from pipeline.predictions import (
    Predictions,
    PredictionWriter,
    ServerTracks,
    listed_videos,
    read_predictions,
    read_server_tracks,
)
from pipeline.records import Dataset
from pipeline.shards import ShardSet
from pipeline.system import System

USES_LABELS = "uses the labels"      # said wherever results of the oracle appear


def scores_folder(recipe: Recipe) -> Path:
    """Where the scores of a mode lie. Another association, a head tested otherwise than trained, and a
    video in parts have their own."""
    if recipe.evaluation.predictions:
        return recipe.scores_root / "predictions"
    association = recipe.evaluation.association or recipe.inference.association.kind
    streaming = association == "links" and recipe.inference.association.streaming
    head = {} if recipe.inference.head is None else to_json(recipe.inference.head)
    parts = recipe.inference.parts
    words = [recipe.evaluation.mode, *([] if association == "hungarian" else [association]),
             *(["streaming"] if streaming else []),
             *(f"{name}_{value}" for name, value in head.items() if name != "kind" and value is not None),
             *([] if parts is None else [f"parts_{parts.clips}_{parts.shared}_{parts.pairs}"])]
    return recipe.scores_root / "_".join(words)


def stored_predictions(recipe: Recipe, classes: ClassTable) -> Mapping[str, PanopticVideo | Tracks] | None:
    """The predictions to score instead of running a model, when the recipe names some: a folder of predictions, or a
    results.json (or the zip of it) as the evaluation servers take it.

    A video with a wrong entry raises BadInput when it is looked up. Raises ValueError where the recipe scores results
    of another kind.
    """
    path = Path(recipe.evaluation.predictions)
    if not recipe.evaluation.predictions:
        return None
    if not path.exists():
        raise FileNotFoundError(f"evaluation.predictions={path} does not exist; give a folder of predictions, or a "
                                "results.json of YouTube-VIS")
    refuse_other_results(recipe, path, "panoptic" if path.is_dir() else "tracks")
    if path.is_dir():
        predictions = read_predictions(path, compare=True)
        if predictions.classes != classes:
            raise Mismatch(f"the predictions in {path} are in the classes of {predictions.classes.name}, the shards in "
                           f"those of {classes.name}; score them on shards of the data set they were made for")
        return predictions
    listed = listed_videos(evaluated_dataset(recipe))
    if listed is None:
        raise ValueError(f"evaluation.predictions={path} is a file, which only data sets in YouTube-VIS form have as "
                         f"results, not {recipe.dataset.name}; give a folder of predictions")
    return read_server_tracks(path, videos=listed, classes=classes)


def refuse_other_results(recipe: Recipe, path: Path, kind: str) -> None:
    """Raise ValueError where the recipe scores more than the kind of results that predictions on disk have."""
    results = list(recipe.inference.results)
    if results != [kind]:
        raise ValueError(f"evaluation.predictions={path} holds {kind} results, and inference.results={results} are to "
                         f"be scored; give predictions of that kind, or --set 'inference.results=[\"{kind}\"]'")


def stray_entries(predictions: Mapping[str, PanopticVideo | Tracks] | None) -> list[dict[str, Any]]:
    """Entries of predictions on disk that belong to no video: reason, how many, and the first message."""
    strays = predictions.strays if isinstance(predictions, Predictions | ServerTracks) else []
    first: dict[str, BadInput] = {}
    for error in strays:
        first.setdefault(error.reason, error)
    times = Counter(error.reason for error in strays)
    return [{"reason": reason, "entries": times[reason], "message": str(error)} for reason, error in first.items()]


def refuse_strays(recipe: Recipe, predictions: Mapping[str, PanopticVideo | Tracks] | None) -> None:
    """Raise BadInput for an entry that belongs to no video, if `strict` is set or no entry belongs to one."""
    if not isinstance(predictions, Predictions | ServerTracks) or not predictions.strays:
        return
    if recipe.strict or not predictions.has_entries:
        raise predictions.strays[0]


def evaluated_dataset(recipe: Recipe) -> Dataset:
    """The data set on disk of the split that is scored."""
    return open_dataset(replace(recipe.dataset, root=str(recipe.data_root), split=recipe.evaluation.split))


def prediction_writer(recipe: Recipe, system: System | None, shards: ShardSet) -> PredictionWriter | None:
    """Where predictions are kept, one folder per system, so that those of another model are never mixed in."""
    if system is None or not recipe.evaluation.keep_predictions:
        return None
    made_by = {**system.made_by, "shards_fingerprint": shards.fingerprint}
    if recipe.evaluation.association:
        made_by["association"] = f"{recipe.evaluation.association}, {USES_LABELS}"
    folder = scores_folder(recipe) / "predictions" / digest(made_by)[:16]
    return PredictionWriter(folder=folder, classes=shards.classes, made_by=made_by, formats=recipe.evaluation.formats)


def finish_predictions(recipe: Recipe, writer: PredictionWriter | None, videos: list[str]) -> str | None:
    """Join the parts of all videos; returns their folder, or None where there is nothing to join."""
    if writer is None or not videos:
        return None
    return str(writer.finish(videos, listed=lambda: listed_videos(evaluated_dataset(recipe))).parent)
