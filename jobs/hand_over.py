"""Put a finished system into one folder for somebody who has no clone, and register it as `video_segmenter`.

In:     the finished models of a run. predict.mode and inference choose the way, as for predict.
Out:    <folder>/handover/system, the weights, the settings and a model card of the Hugging Face Hub, and
        <folder>/handover/video_segmenter, the same as a model of MLflow with its code. In MLflow, a version of
        `video_segmenter` with the alias `newest`; the alias `champion` where it scores best (see jobs.promote).
Again:  both folders are written anew; the same system keeps its version.
Cost:   seconds; --export takes a minute or two.

    python -m jobs.hand_over --recipe demo
    python -m jobs.hand_over --recipe demo --set predict.mode=near_online --export 96x96
    python -m jobs.hand_over --recipe demo --push-to OWNER/NAME
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.console import say
from jobs.handover.bundle import open_bundle, write_bundle
from jobs.handover.exported import export_segmenter, write_program
from jobs.handover.hub import push_to_hub, write_readme
from jobs.handover.mlflow_model import write_model
from jobs.predict import with_mode
from jobs.promote import champion_values, evaluation_of
from jobs.recipes.schema import Recipe
from jobs.training.tracker import Tracker
from jobs.verb import CommandLine, recorded, run
from pipeline.at_work import alone_in
from pipeline.files import partial_path, publish, remove_folder

NAME = "video_segmenter"        # in MLflow's registry


@dataclass(frozen=True, kw_only=True)
class HandOverLine(CommandLine):
    """The flags of this verb."""

    export: str = ""        # height x width of the network input in pixels, such as 96x96: also a torch.export program
    push_to: str = ""       # owner/name of a repository of the Hugging Face Hub; it is private where it is new


def main(recipe: Recipe, flags: HandOverLine) -> dict[str, Any]:
    """Write the folders and register the model; returns where they lie. Raises FileNotFoundError without a model."""
    size = size_of(flags.export) if flags.export else None
    recipe = with_mode(recipe)
    folder = recipe.run_folder / "handover"
    with alone_in(folder, "jobs.hand_over"), recorded(recipe, "hand_over", mode=recipe.predict_mode) as tracker:
        with replaced(folder / "system") as system:
            card = write_bundle(system, recipe, recipe.predict_mode)
            write_readme(system, card)
        with replaced(folder / NAME) as model:
            write_model(model, folder / "system", card)
        summary = {"system": str(folder / "system"), "model": str(folder / NAME)}
        if size is not None:
            program = folder / f"segmenter_{size[0]}x{size[1]}.pt2"
            write_program(program, export_segmenter(open_bundle(folder / "system"), size))
            summary |= {"program": str(program)}
        register(recipe, tracker, folder / NAME, card)
    if flags.push_to:
        summary |= {"commit": push_to_hub(folder / "system", flags.push_to)}
    say(f"the system: {folder / 'system'}", f"the model of MLflow: {folder / NAME}",
        *([tracker.ids["promotion"]] if tracker.ids["promotion"] else []))
    return {**summary, "registered_version": tracker.ids["version"]}


def register(recipe: Recipe, tracker: Tracker, model: Path, card: Mapping[str, Any]) -> None:
    """Store the model in MLflow and register it; with scores, it asks to be the champion."""
    tracker.file(model, NAME)
    tracker.register(NAME, NAME, {"sha256": card["digest"], "recipe": recipe.name, "mode": card["mode"]})
    scored = replace(recipe, evaluation=replace(recipe.evaluation, mode=card["mode"]))
    try:
        evaluation = evaluation_of(scored)
    except FileNotFoundError:
        say("it has no scores yet, so it does not ask to be the champion")
        return
    tracker.promote(model, champion_values(scored, evaluation, name=NAME, sha256=card["digest"]))


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder that does not exist yet, which takes the place of `folder` when the block ends without an error."""
    partial = partial_path(folder)
    try:
        yield partial
        remove_folder(folder)
        publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def size_of(text: str) -> tuple[int, int]:
    """Height and width. Raises ValueError for anything else."""
    try:
        height, width = map(int, text.split("x"))
    except ValueError:
        raise ValueError(f"--export {text}: give height and width of the network input, such as 96x96") from None
    return height, width


if __name__ == "__main__":
    run(main, default_recipe="demo", flags=HandOverLine)
