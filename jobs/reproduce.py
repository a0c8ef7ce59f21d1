"""Run a table of a paper, and say for every row whether the sign of its difference to the reference row holds.

In:     a table (--list shows all). At official scale the data sets, in the folders that `--dry-run` of the recipes
        shows, and the models that the rows start from (docs/reproduce.md); at synthetic scale nothing.
Out:    <folder>/tables/<id>: table.md, table.csv and table.png; the scores of every row and seed; curves.csv and
        curves.png where trainings were scored on the way. Everything that rows and tables share lies in <folder>/runs
        and is made once. The table is a run of MLflow, and each row and seed a run below it.
Again:  finished rows are kept, training resumes, only what is missing is run. Seeds can be added.
Cost:   at official scale that of the recipes (--list); at synthetic scale minutes on two cores.

    python -m jobs.reproduce --list
    python -m jobs.reproduce --table maxtron.6 --scale synthetic --seeds 3
    python -m jobs.reproduce --table video_kmax.3 --scale official
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import tyro

from jobs.cluster import connect
from jobs.code_version import code_version
from jobs.config import override
from jobs.console import accept_all_characters, log_to_terminal, say
from jobs.ending import answered, end_process
from jobs.recipe_file import with_data_of_its_own
from jobs.recipes.schema import Recipe
from jobs.reproducing.convergence import write_curves
from jobs.reproducing.costs import listing
from jobs.reproducing.plan import RowRun, planned
from jobs.reproducing.report import counted, text, write_report
from jobs.reproducing.runs import RowWorker, TableRuns
from jobs.reproducing.tables import Scale, Table, find_table
from jobs.reproducing.verdicts import verdicts
from jobs.sweeping.ranking import TrialResult
from jobs.sweeping.results import TrialRecords
from jobs.sweeping.workers import Workers
from jobs.verb import guarded, recorded
from pipeline import store
from pipeline.at_work import alone_in


@dataclass(frozen=True, kw_only=True)
class ReproduceFlags:
    """The flags of this verb."""

    table: str = ""                 # its id, such as maxtron.6; an unknown one lists all
    scale: Scale = "synthetic"      # official: the recipes of the paper; synthetic: the same field on a synthetic world
    seeds: int = 3                  # runs of every row, which differ in the seeds of all stages
    folder: str = ""                # of all runs and tables; empty: runs/reproduce_<scale>
    list: bool = False              # print all tables with their rows and costs, and exit
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()     # path.to.field=value for every row, repeatable
    strict: bool = False            # stop at the first bad video instead of skipping and counting it
    dry_run: bool = False           # print the recipe of the reference row and exit

    @property
    def root(self) -> Path:
        """The folder of all runs and tables; a path that stands for it, where it is in a store."""
        given = self.folder or f"runs/reproduce_{self.scale}"
        return store.working_path(given) if store.is_address(given) else Path(given)

    @property
    def changes(self) -> tuple[str, ...]:
        """The settings for every row."""
        return (*self.set, *(("strict=true",) if self.strict else ()))


def main(recipe: Recipe, flags: ReproduceFlags) -> dict[str, Any]:
    """Run what the table lacks, and write and print its verdicts; returns where they lie.

    recipe: that of the table (`table_recipe`). Waits for another process that runs the same table.
    """
    table = find_table(flags.table)
    root = recipe.run_folder.parent.parent
    store.look(root)
    runs = planned(table, flags.scale, seeds=flags.seeds, root=root, changes=flags.changes)
    with alone_in(recipe.run_folder, "jobs.reproduce"):
        return run_table(recipe, table, flags, on_processes(runs, flags.scale))


def run_table(recipe: Recipe, table: Table, flags: ReproduceFlags, runs: Sequence[RowRun]) -> dict[str, Any]:
    """`main` in a folder that no other process uses."""
    started = time.perf_counter()
    folder = recipe.run_folder
    # At official scale the verbs of one row after another take the cluster; at synthetic scale its processes take rows.
    cluster = recipe.cluster if flags.scale == "synthetic" else replace(recipe.cluster, in_process=True)
    connect(cluster)
    with recorded(recipe, f"reproduce_{flags.scale}", table=table.id) as tracker:
        with Workers(RowWorker, {"quiet": flags.scale == "synthetic"}, cluster) as workers:
            table_runs = TableRuns(runs, table.metrics, workers, TrialRecords(folder / "rows"), tracker)
            results = table_runs.results()
        judged = verdicts(table, results, flags.scale)
        files = write_report(folder, table, judged, how(flags, results)) | write_curves(folder, runs)
        for path in files.values():
            tracker.file(Path(path))
    say("", text(judged), "", counted(judged), f"everything in {folder}")
    return {"table": table.id, "scale": flags.scale, "runs": len(results), "new": table_runs.count,
            "failed": sum(bool(result.error) for result in results), "seconds": round(time.perf_counter() - started, 1),
            "signs": {f"{verdict.row}: {verdict.metric}": verdict.sign for verdict in judged}, **files}


def how(flags: ReproduceFlags, results: Sequence[TrialResult]) -> str:
    """The sentence that says how a table was made."""
    version = code_version()
    commit = f"{version['commit'][:10]}{' with changes' if version['changed'] else ''}"
    words = ["python -m jobs.reproduce", f"--table {flags.table}", f"--scale {flags.scale}", f"--seeds {flags.seeds}",
             *(f"--set '{change}'" for change in flags.changes)]
    minutes = sum(result.seconds for result in results) / 60
    cost = "CPU minutes" if flags.scale == "synthetic" else "minutes of one process"
    return (f"`{' '.join(words)}`, {date.today().isoformat()}, commit {commit}; {minutes:.0f} {cost}, without attempts "
            "that were stopped. Intervals: the middle 95 % of 200 draws of videos and seeds.")


def table_recipe(flags: ReproduceFlags) -> Recipe:
    """The recipe of the reference row, or of the first row that can be run, in the folder of the table.

    Its cluster, its tracking and its folder are those of the whole table.
    """
    if flags.seeds < 1:
        raise ValueError(f"--seeds {flags.seeds}: there must be at least one")
    table = find_table(flags.table)
    rows = [table.row(table.reference), *table.rows]
    able = next((row for row in rows if not table.missing(row, flags.scale)), rows[0])
    recipe = override(table.recipe_of(able, flags.scale), with_data_of_its_own(flags.changes))
    return replace(recipe, name=table.id, stage_one_from="", folder=str(flags.root / "tables" / table.id))


def on_processes(runs: Sequence[RowRun], scale: Scale) -> list[RowRun]:
    """At synthetic scale each run is made in one process; at official scale the cluster of its recipe makes it."""
    if scale == "official":
        return list(runs)
    def in_process(recipe: Recipe) -> Recipe:
        return replace(recipe, cluster=replace(recipe.cluster, in_process=True, workers=1))

    return [replace(run, recipe=in_process(run.recipe), start=None if run.start is None else in_process(run.start))
            for run in runs]


def command() -> None:
    """The command line."""
    accept_all_characters()
    log_to_terminal()
    flags = answered(lambda: tyro.cli(ReproduceFlags, description=__doc__, prog="python -m jobs.reproduce"))
    if flags.list:
        say(*listing())
        return

    def verb(recipe: Recipe) -> dict[str, Any]:
        return main(recipe, flags)

    uses = ("actors",) if flags.scale == "synthetic" else ("tasks", "workers", "pool")
    end_process(guarded(verb, lambda: table_recipe(flags), dry_run=flags.dry_run, uses=uses))


if __name__ == "__main__":
    command()
