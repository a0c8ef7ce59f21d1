"""Which runs a table needs, and the folders in which they lie.

Folders are named by what decides their content, so rows and tables share what they have in common:

    <folder>/runs/data-<digest>         world and shards
    <folder>/runs/stage_one-<digest>    segmenter and query cache, of one seed
    <folder>/runs/stage_two-<digest>    cross-clip head and links, of one seed
    <folder>/tables/<id>                results of the rows, and the table
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.config import override, to_json
from jobs.recipe_file import with_data_of_its_own
from jobs.recipes.schema import CacheConfig, EvaluationConfig, Recipe
from jobs.reproducing.costs import needs_stage_two
from jobs.reproducing.tables import Row, Scale, Table
from jobs.verb import resolved
from pipeline.files import digest

SEEDS = ("stage_one.fit.seed", "stage_one.input.seed", "cache.seed")
STAGE_TWO_SEEDS = ("stage_two.fit.seed", "stage_two.input.seed")
LINKS_SEEDS = ("stage_two.links.fit.seed", "stage_two.links.input.seed")
DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class RowRun:
    """One row with one seed."""

    row: Row
    seed: int
    recipe: Recipe          # with its folders
    name: str               # of its files: equal for equal runs
    start: Recipe | None = None     # of the segmenter that it starts from, where the table trains one


def planned(table: Table, scale: Scale, *, seeds: int, root: Path, changes: Sequence[str] = ()) -> list[RowRun]:
    """The runs of all rows that can be run at this scale. changes: path=value for every row.

    A row that counts the cost of a network has one run. Raises ValueError where no row can be run, or for a change that
    does not fit.
    """
    reasons = {row.name: table.missing(row, scale) for row in table.rows}
    if all(reasons.values()):
        raise ValueError(f"no row of {table.id} can be run at {scale} scale: "
                         f"{'; '.join(f'{name}: {reason}' for name, reason in reasons.items())}")
    runs = []
    for row in table.rows:
        start = table.start_of(row, scale)
        if start is not None:
            start = override(start, with_data_of_its_own(changes))
            start = placed(resolved(seeded(without_unread_parts(start), 0)), root / "runs")
        for seed in range(0 if reasons[row.name] else seeds if row.is_trained else 1):
            recipe = override(table.recipe_of(row, scale), with_data_of_its_own(changes))
            recipe = placed(resolved(seeded(without_unread_parts(recipe), seed)), root / "runs", start)
            name = run_name(recipe, row)
            output = root / "tables" / table.id / "scores" / name
            evaluation = replace(recipe.evaluation, output=str(output))
            if scale == "synthetic":
                evaluation = replace(evaluation, overlays=0, keep_predictions=False)
            runs.append(RowRun(row=row, seed=seed, name=name, start=start,
                               recipe=replace(recipe, evaluation=evaluation)))
    return runs


def without_unread_parts(recipe: Recipe) -> Recipe:
    """The recipe without the stages and the caching that its score does not depend on."""
    if needs_stage_two(recipe):
        return recipe
    return replace(recipe, stage_two=None, cache=CacheConfig())


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with the seed in all of its stages: initial weights, and the order and drawing of the data."""
    two = recipe.stage_two
    names = [*SEEDS, *(STAGE_TWO_SEEDS if two else ()), *(LINKS_SEEDS if two and two.links else ())]
    return override(recipe, [f"{name}={seed}" for name in names])


def placed(recipe: Recipe, runs: Path, start: Recipe | None = None) -> Recipe:
    """The recipe with the folders of its stages, and with the segmenter of `start`, a placed recipe, to start from."""
    data = data_folder(recipe, runs)
    recipe = replace(recipe, shards_from=str(data))
    decides = [data.name, recipe.train_split, to_json(recipe.stage_one)]
    if start is not None:
        decides.append(start.run_folder.name)
        recipe = override(recipe, [f"stage_one.start_from={start.segmenter_folder}"])
    one = runs / f"stage_one-{_digest(decides)}"
    if recipe.stage_two is None:
        return replace(recipe, folder=str(one), stage_one_from="")
    inference = recipe.inference
    read = [inference.clip_frames, inference.enlarge, inference.precision, to_json(inference)["resize"]]
    two = runs / f"stage_two-{_digest([one.name, to_json(recipe.cache), read, to_json(recipe.stage_two)])}"
    return replace(recipe, folder=str(two), stage_one_from=str(one))


def data_folder(recipe: Recipe, runs: Path) -> Path:
    """Where the world and the shards of a recipe lie."""
    stills = recipe.stage_one.stills
    sources = [recipe.dataset, recipe.world, recipe.shards, stills and stills.dataset]
    return runs / f"data-{_digest([source and to_json(source) for source in sources])}"


def run_name(recipe: Recipe, row: Row) -> str:
    """The name of a run with one seed, which decides its score together with the folders."""
    evaluation = to_json(replace(recipe.evaluation, output="", overlays=0, keep_predictions=True,
                                 formats=EvaluationConfig().formats))
    return _digest([Path(recipe.folder).name, to_json(recipe.inference), evaluation,
                    row.profile and [*row.profile.size, row.profile.clip_frames],
                    *([] if row.longest is None else [row.longest.gigabytes, *row.longest.size])])


def first_of_each(runs: Iterable[RowRun], key) -> list[RowRun]:
    """The first run of each value of `key`; None leaves a run out."""
    firsts = {key(run): run for run in reversed(list(runs))}
    return [run for value, run in reversed(firsts.items()) if value is not None]


def _digest(values: list) -> str:
    return digest(values)[:DIGITS]
