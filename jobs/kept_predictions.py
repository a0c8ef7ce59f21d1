"""Where the predictions of an evaluation lie, and predictions to score instead of running a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jobs.config import to_json
from jobs.recipes.schema import Recipe
from model.contracts import PanopticVideo, Tracks
from model.labels import ClassTable
from pipeline.datasets import open_dataset
from pipeline.errors import Mismatch
from pipeline.files import digest
from pipeline.predictions import PredictionWriter, listed_videos, read_predictions, read_results
from pipeline.records import Dataset
from pipeline.shards import ShardSet
from pipeline.system import System


def scores_folder(recipe: Recipe) -> Path:
    """Where the scores of a mode lie. Another association, and a head tested otherwise than trained, have their own."""
    base = Path(recipe.evaluation.output or recipe.run_folder / "scores")
    if recipe.evaluation.predictions:
        return base / "predictions"
    association = recipe.inference.association.kind
    head = {} if recipe.inference.head is None else to_json(recipe.inference.head)
    parts = [recipe.evaluation.mode, *([] if association == "hungarian" else [association]),
             *(f"{name}_{value}" for name, value in head.items() if name != "kind" and value is not None)]
    return base / "_".join(parts)


def stored_predictions(recipe: Recipe, classes: ClassTable) -> Mapping[str, PanopticVideo | Tracks] | None:
    """The predictions to score instead of running a model, when the recipe names some: a folder of predictions, or a
    results.json (or the zip of it) as the evaluation servers take it."""
    path = Path(recipe.evaluation.predictions)
    if not recipe.evaluation.predictions:
        return None
    if not path.exists():
        raise FileNotFoundError(f"evaluation.predictions={path} does not exist; give a folder of predictions, or a "
                                "results.json of YouTube-VIS")
    if path.is_dir():
        predictions = read_predictions(path)
        if predictions.classes != classes:
            raise Mismatch(f"the predictions in {path} are in the classes of {predictions.classes.name}, the shards in "
                           f"those of {classes.name}; score them on shards of the data set they were made for")
        return predictions
    listed = listed_videos(evaluated_dataset(recipe))
    if listed is None:
        raise ValueError(f"evaluation.predictions={path} is a file, which only data sets in YouTube-VIS form have as "
                         f"results, not {recipe.dataset.name}; give a folder of predictions")
    return read_results(path, videos=listed, classes=classes)


def evaluated_dataset(recipe: Recipe) -> Dataset:
    """The data set on disk of the split that is scored."""
    return open_dataset(replace(recipe.dataset, root=str(recipe.data_root), split=recipe.evaluation.split))


def prediction_writer(recipe: Recipe, system: System | None, shards: ShardSet) -> PredictionWriter | None:
    """Where predictions are kept, one folder per system, so that those of another model are never mixed in."""
    if system is None or not recipe.evaluation.keep_predictions:
        return None
    made_by = {**system.made_by, "shards_fingerprint": shards.fingerprint}
    folder = scores_folder(recipe) / "predictions" / digest(made_by)[:16]
    return PredictionWriter(folder=folder, classes=shards.classes, made_by=made_by, formats=recipe.evaluation.formats)


def finish_predictions(recipe: Recipe, writer: PredictionWriter | None, videos: list[str]) -> str | None:
    """Join the parts of all videos; returns their folder, or None where there is nothing to join."""
    if writer is None or not videos:
        return None
    return str(writer.finish(videos, listed=lambda: listed_videos(evaluated_dataset(recipe))).parent)
