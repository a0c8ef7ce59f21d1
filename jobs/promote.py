"""Make a finished model the champion of MLflow's registry, if it is better than the champion there is.

In:     a finished model and its scores: evaluation.mode and inference.association name the evaluation, as for evaluate.
Out:    in MLflow, the alias `champion` of `segmenter`, or of `cross_clip_head` where evaluation.mode=offline. The
        version is described with its scores. A model that does not win is not registered.
Again:  nothing changes. A tracker that is away gets the request later, from the next verb or jobs.sync_tracking.
Cost:   seconds.

    python -m jobs.promote --recipe demo
    python -m jobs.promote --recipe demo --set evaluation.mode=offline --metric vpq_k12
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.console import say
from jobs.kept_predictions import scores_folder
from jobs.models import lineage, read_card
from jobs.recipes.schema import Recipe
from jobs.reporting.evaluations import Evaluation, read_evaluations
from jobs.verb import CommandLine, command_line, recorded, run
from pipeline.metrics.scorecard import FIRST_NUMBER, lower_is_better


@dataclass(frozen=True, kw_only=True)
class PromoteLine(CommandLine):
    """The flags of this verb."""

    metric: str = ""        # by which models are compared, such as vpq_k12; empty: VPQ, AP or mIoU


def main(recipe: Recipe, flags: PromoteLine) -> dict[str, Any]:
    """Make the model the champion if it scores best; returns the outcome.

    Raises FileNotFoundError without a model or its scores.
    """
    evaluation = evaluation_of(recipe)
    is_head = recipe.evaluation.mode == "offline"
    folder = recipe.head_folder if is_head else recipe.segmenter_folder
    name = "cross_clip_head" if is_head else "segmenter"
    values = champion_values(recipe, evaluation, name=name, sha256=read_card(folder)["weights_sha256"],
                             metric=flags.metric) | {"tags": lineage(folder)}
    metric = values["metric"]
    score = values["score"]
    with recorded(recipe, "promote", metric=metric) as tracker:
        tracker.promote(folder, values)
    said = tracker.ids["promotion"] or f"{name} asks to be the champion with {score:.2f} {metric}, once MLflow is there"
    say(said)
    return {"model": name, "metric": metric, "score": score, "promotion": tracker.ids["promotion"]}


def champion_values(recipe: Recipe, evaluation: Evaluation, *, name: str, sha256: str, metric: str = ""
                    ) -> dict[str, Any]:
    """What `registry.promote` takes. metric: "" for VPQ, AP or mIoU. Raises ValueError for one that was not scored."""
    metric = metric or FIRST_NUMBER[recipe.inference.results[0]]
    score = evaluation.numbers.get(metric)
    if score is None:
        raise ValueError(f"there is no score {metric!r} in {evaluation.folder / 'scores.json'}. Set --metric to one "
                         f"of {', '.join(name for name, value in evaluation.numbers.items() if value is not None)}")
    return {"name": name, "sha256": sha256, "metric": metric, "score": score, "lower": lower_is_better(metric),
            "description": described(recipe, evaluation)}


def evaluation_of(recipe: Recipe) -> Evaluation:
    """The evaluation that a recipe names. Raises ValueError for a reference, FileNotFoundError where there is none."""
    folder = scores_folder(recipe)
    for evaluation in read_evaluations(folder.parent):
        if evaluation.folder == folder:
            if not evaluation.is_result or recipe.evaluation.predictions:
                raise ValueError(f"{folder} holds scores of a reference, not of a finished model; set evaluation.mode "
                                 "to near_online or offline, and evaluation.association to nothing")
            return evaluation
    command = command_line(recipe, "evaluate").removeprefix("next: ")
    raise FileNotFoundError(f"there are no scores in {folder}; make them: {command}")


def described(recipe: Recipe, evaluation: Evaluation) -> str:
    """A description with scores, as Markdown."""
    scores = "\n".join(f"- {name}: {value:.2f}" for name, value in evaluation.numbers.items() if value is not None)
    return (f"Recipe `{recipe.name}`, run `{recipe.run_folder}`, {evaluation.title}, "
            f"{evaluation.summary.get('videos')} videos. Scores in percent, switches as a count:\n\n{scores}\n")


if __name__ == "__main__":
    run(main, default_recipe="demo", flags=PromoteLine)
