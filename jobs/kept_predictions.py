"""Where the predictions of an evaluation lie, and predictions to score instead of running a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jobs.inference import System
from jobs.recipes.schema import Recipe
from jobs.training.progress import say
from model.association import HungarianConfig
from model.contracts import PanopticVideo, Tracks
from model.labels import ClassTable
from pipeline.datasets import open_dataset
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.errors import Mismatch
from pipeline.files import digest
from pipeline.predictions import PredictionWriter, read_listed_videos, read_predictions, read_results, write_results
from pipeline.records import Dataset
from pipeline.shards import ShardSet


def scores_folder(recipe: Recipe) -> Path:
    """Where the scores of a mode lie."""
    config = recipe.evaluation
    linked = "" if isinstance(config.association, HungarianConfig) else f"_{config.association.name}"
    return recipe.road / "scores" / ("predictions" if config.predictions else config.mode + linked)


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
        found = read_predictions(path)
        if found.classes != classes:
            raise Mismatch(f"the predictions in {path} are in the classes of {found.classes.name}, the shards in those "
                           f"of {classes.name}; score them on shards of the data set they were made for")
        return found
    dataset = evaluated_dataset(recipe)
    if not isinstance(dataset, YouTubeVis):
        raise ValueError(f"evaluation.predictions={path} is a file, which only data sets in YouTube-VIS form have as "
                         f"results, not {recipe.dataset.name}; give a folder of predictions")
    return read_results(path, videos=read_listed_videos(dataset.annotations), classes=dataset.classes)


def evaluated_dataset(recipe: Recipe) -> Dataset:
    """The data set on disk of the split that is scored."""
    return open_dataset(replace(recipe.dataset, root=str(recipe.data_root), split=recipe.evaluation.split))


def prediction_writer(recipe: Recipe, system: System | None, shards: ShardSet) -> PredictionWriter | None:
    """Where predictions are kept, one folder per system, so that those of another model are never mixed in."""
    if system is None or not recipe.evaluation.keep_predictions:
        return None
    made_by = {**system.made_by, "shards_fingerprint": shards.fingerprint}
    folder = scores_folder(recipe) / "predictions" / digest(made_by)[:16]
    return PredictionWriter(folder=folder, classes=shards.classes, made_by=made_by)


def finish_predictions(recipe: Recipe, writer: PredictionWriter | None, videos: list[str]) -> str | None:
    """Join the parts of all videos; tracks also become what the evaluation servers take, where every video has some.

    The server's numbers of the videos are in the data set's json, which need not be on this machine.
    """
    if writer is None or not videos:
        return None
    folder = writer.finish(videos).parent
    if "tracks" in recipe.evaluation.results:
        try:
            write_for_server(folder / "results.zip", evaluated_dataset(recipe), writer)
        except FileNotFoundError as error:
            say(f"no results.zip for an evaluation server: {error}")
    return str(folder)


def write_for_server(path: Path, dataset: Dataset, writer: PredictionWriter) -> None:
    """The tracks of a split in YouTube-VIS form; other data sets have no such server."""
    if isinstance(dataset, YouTubeVis):
        listed = read_listed_videos(dataset.annotations)
        write_results(path, map(writer.tracks, listed), videos=listed, classes=dataset.classes)
