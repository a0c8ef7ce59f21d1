"""What a run is, and the commands that repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.models import read_card
from jobs.recipes.schema import Recipe
from jobs.reporting.evaluations import Evaluation
from jobs.training.tracking import stored_ids
from jobs.verb import command_line, environment
from pipeline import store
from pipeline.shards import ShardSet

PACKAGES = ("torch", "ray", "timm", "mlflow")       # whose versions are shown


def facts(recipe: Recipe, shards: ShardSet) -> list[tuple[str, str]]:
    """Name and value of what a reader asks first."""
    versions = environment()
    model = model_facts(recipe)
    ids = stored_ids(recipe.run_folder)
    known = {
        "recipe": f"{recipe.file or recipe.name}: {recipe.about}",
        "folder": store.shown(str(recipe.run_folder)),
        "data": f"{shards.manifest['dataset']}, split {shards.split}: {len(shards.videos)} videos, "
                f"{shards.manifest['totals']['frames']} frames, {len(shards.classes)} classes",
        "fingerprint of the shards": shards.fingerprint,
        "network": f"{recipe.stage_one.segmenter.kind}, backbone {recipe.stage_one.segmenter.backbone.name}"
                   + (f", cross-clip head {recipe.head.kind}" if recipe.head is not None else ""),
        "trained by code": model.get("code", "no segmenter is trained yet"),
        "weights (sha256)": model.get("weights", ""),
        "versions now": ", ".join([f"Python {versions['python']}", *(f"{name} {versions['packages'][name]}" for name in
                                                                     PACKAGES if name in versions["packages"])]),
        "MLflow run": f"{ids['parent']} at {ids['uri']}" if "parent" in ids else "",
    }
    return [(name, value) for name, value in known.items() if value]


def model_facts(recipe: Recipe) -> dict[str, str]:
    """Code and weights of the finished segmenter; {} without one."""
    try:
        card: dict[str, Any] = read_card(recipe.segmenter_folder)
    except FileNotFoundError:
        return {}
    code = card.get("code") or {}
    changed = " with changes that are not committed" if code.get("changed") else ""
    return {"code": f"{code.get('commit', 'unknown')}{changed}", "weights": card["weights_sha256"]}


def commands(recipe: Recipe, evaluations: Sequence[Evaluation]) -> list[str]:
    """The commands that repeat the run, in their order, and this page."""
    verbs = ["make_shards", "train_stage_one", *(["cache_queries", "train_stage_two"] if recipe.stage_two else [])]
    scores = [evaluation.summary["command"] for evaluation in evaluations if evaluation.summary.get("command")]
    lines = [*(command_line(recipe, verb) for verb in verbs), *scores, command_line(recipe, "report")]
    return [line.removeprefix("next: ") for line in lines]
