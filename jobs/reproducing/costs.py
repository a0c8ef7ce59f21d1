"""What the rows of a table cost, and the list of all tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from jobs.recipes.schema import Recipe
from jobs.reproducing.tables import Row, Synthetic, Table, tables

Commands = Literal["stage one", "head", "all", "score"]

TITLES = {"vpq": "VPQ", "vpq_thing": "VPQ things", "vpq_stuff": "VPQ stuff", "stq": "STQ", "aq": "AQ", "sq": "SQ",
          "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar1": "AR1", "ar10": "AR10", "miou": "mIoU", "mvc8": "mVC8",
          "mvc16": "mVC16", "ap_of_all": "AP all", "ap_of_short": "AP short", "ap_of_long": "AP long",
          "matching_space_average": "average size", "matching_space_max": "largest size",
          "parameters_m": "M parameters", "gflops": "GFLOPs", "max_frames": "frames",
          **{f"vpq_k{window}": f"VPQ {window}" for window in (1, 2, 4, 6)}}


def needs_stage_two(recipe: Recipe) -> bool:
    """Whether the score of a recipe depends on what stage two trains."""
    if recipe.stage_two is None:
        return False
    return recipe.evaluation.mode == "offline" or recipe.inference.association.kind == "links"


def commands_of(recipe: Recipe) -> Commands:
    """Which verbs the recipe runs itself; the others belong to the recipe whose folder it reads."""
    trains_alone = not recipe.stage_one_from and recipe.folder in ("", f"runs/{recipe.name}")
    if not needs_stage_two(recipe):
        return "stage one" if trains_alone else "score"
    return "all" if trains_alone else "head"


def cost_of(recipe: Recipe) -> str:
    """Steps x batch, and GPUs, of the last stage that the recipe trains itself; "-" where it trains none."""
    commands = commands_of(recipe)
    if commands == "score":
        return "-"
    stage = recipe.stage_one if commands == "stage one" else recipe.stage_two
    return f"{stage.fit.steps:,} x {stage.input.batch_size}, {recipe.cluster.workers}"


def row_cost(table: Table, row: Row) -> str:
    """The cost of a row at official scale, or why it cannot be run."""
    if row.profile is not None:
        return "seconds on a CPU"
    if row.longest is not None:
        return "about 15 passes of the head; not measured yet"
    return table.missing(row, "official") or cost_of(table.recipe_of(row, "official"))


def synthetic_cost(synthetic: Synthetic) -> str:
    """The recipe of a table at synthetic scale, and the processor time that its rows take."""
    minutes = "not measured yet" if synthetic.minutes is None else f"{synthetic.minutes:g} CPU minutes"
    return f"{synthetic.recipe}, three seeds: {minutes}"


def listing() -> Iterator[str]:
    """All tables and rows as lines: published numbers and cost at official scale, and the world at synthetic scale."""
    yield "Cost: optimizer steps x clips a step, GPUs. GPU hours = steps x seconds per step x GPUs / 3600."
    for table in tables().values():
        yield ""
        yield f"{table.id}: {table.title}"
        for row in table.rows:
            numbers = ", ".join(f"{row.published[metric]} {TITLES[metric]}" for metric in table.metrics
                                if metric in row.published)
            marker = "*" if row.name == table.reference else " "
            yield f"  {marker} {row.name}: {numbers or 'no published score'} | {row_cost(table, row)}"
        if table.synthetic is not None:
            yield f"    synthetic: {synthetic_cost(table.synthetic)}. {table.synthetic.why}"
