"""Draw what two systems made of the same videos below each other, with their identity switches marked.

In:     shards of evaluation.split with labels, and two evaluations with kept predictions. Each is the name of a folder
        of the run's scores, such as near_online or offline_links, or the path of such a folder of another run.
Out:    <folder>/side_by_side/<video>.png for the videos whose switches differ most in number: the truth, and below it
        the two results; a red box marks each thing in the frame of its switch. A video whose predictions were not kept
        is named and left out.
Again:  drawn anew.
Cost:   seconds; no network runs.

    python -m jobs.draw_switches --recipe demo --first near_online --second near_online_links
    python -m jobs.draw_switches --recipe demo --second runs/other/scores/near_online
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.console import say
from jobs.recipes.schema import Recipe
from jobs.reporting.evaluations import Evaluation, read_evaluations
from jobs.reporting.scenes import open_scene
from jobs.reporting.side_by_side import differing_videos, grid
from jobs.verb import CommandLine, run
from pipeline.at_work import alone_in
from pipeline.file_names import name_for
from pipeline.files import atomic_write
from pipeline.images import encode_png
from pipeline.shards import ShardSet, VideosByName


@dataclass(frozen=True, kw_only=True)
class SwitchesLine(CommandLine):
    """The flags of this verb."""

    first: str = "near_online"      # an evaluation: its folder in the scores of the run, or a path
    second: str = "offline"         # the one that is drawn below it
    videos: int = 4                 # that are drawn
    frames: int = 6                 # of a video, at most


def main(recipe: Recipe, flags: SwitchesLine) -> dict[str, Any]:
    """Draw the videos; returns where the pictures lie. Raises FileNotFoundError where there is nothing to draw."""
    if min(flags.videos, flags.frames) < 1:
        raise ValueError(f"--videos {flags.videos} --frames {flags.frames}: both must be at least 1")
    shards = ShardSet(recipe.shards_of(recipe.evaluation.split))
    evaluations = [evaluation_at(recipe, name) for name in (flags.first, flags.second)]
    stored = VideosByName(shards.videos)
    folder = recipe.run_folder / "side_by_side"
    files = {}
    with alone_in(folder, "jobs.draw_switches"):
        for name in differing_videos(*evaluations):
            if len(files) == flags.videos or name not in stored:
                continue
            scenes = [open_scene(evaluation, stored[name], shards, recipe) for evaluation in evaluations]
            if None in scenes:
                continue
            if any(scene.timeline is None for scene in scenes):
                raise ValueError("semantic results have no identities, so no switches; score "
                                 "panoptic results or tracks")
            path = folder / f"{name_for(name)}.png"
            picture = grid(dict(zip(titles(evaluations), scenes)), shards, columns=flags.frames)
            atomic_write(path, encode_png(picture))
            files[str(path)] = [len(scene.timeline.switches) for scene in scenes]
            say(f"{name}: {files[str(path)][0]} switches, {files[str(path)][1]} in the second result: {path}")
    if not files:
        raise FileNotFoundError(f"no video of {shards.folder} has predictions in both {evaluations[0].folder} and "
                                f"{evaluations[1].folder}; evaluate both with evaluation.keep_predictions=true")
    return {"folder": str(folder), "switches": files}


def evaluation_at(recipe: Recipe, name: str) -> Evaluation:
    """The evaluation of this name or path. Raises FileNotFoundError that lists what the run has."""
    folder = Path(name) if Path(name).is_dir() else recipe.scores_root / name
    found = {evaluation.folder: evaluation for evaluation in read_evaluations(folder.parent)}
    if folder not in found:
        known = ", ".join(evaluation.name for evaluation in read_evaluations(recipe.scores_root)) or "none"
        raise FileNotFoundError(f"there is no finished evaluation in {folder}. This run has these scores: {known}. "
                                "Name one of them, or run jobs.evaluate")
    return found[folder]


def titles(evaluations: list[Evaluation]) -> list[str]:
    """A title for each, which names the run as well where the evaluations have one name."""
    names = [evaluation.title for evaluation in evaluations]
    if len(set(names)) == len(names):
        return names
    return [f"{place}. {evaluation.folder.absolute().parent.parent.name} {name}"
            for place, (evaluation, name) in enumerate(zip(evaluations, names), start=1)]


if __name__ == "__main__":
    run(main, default_recipe="demo", flags=SwitchesLine)
