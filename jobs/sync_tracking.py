"""Log in MLflow what the verbs of a run could not log, because the tracker was away.

In:     <folder>/tracking, where each verb keeps what MLflow did not take; of a folder of runs, that of every run in it.
Out:    the runs of MLflow with their numbers, files, status and registered models, as if the tracker had been there.
Again:  nothing is logged twice. What the tracker does not take stays, and the verb ends with exit code 2.
Cost:   sending the files again.

    python -m jobs.sync_tracking --recipe tiny
    python -m jobs.sync_tracking --recipe tiny --set folder=/data/runs --set tracking.uri=http://tracker:5000
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.console import say
from jobs.recipes.schema import Recipe
from jobs.training.delivery import log_waiting
from jobs.training.record import FOLDER, logging_alone, waiting
from jobs.training.tracking import chosen_uri
from jobs.verb import run


def main(recipe: Recipe) -> dict[str, Any]:
    """Log all that waits; returns how much that was. Raises ConnectionError where some still waits."""
    logged = 0
    left = 0
    reasons = []
    for folder in waiting_runs(recipe.run_folder):
        before = waiting(folder)
        with logging_alone(folder, wait=True):
            reasons += log_waiting(folder, chosen_uri(recipe.tracking), {})
        logged += before - waiting(folder)
        left += waiting(folder)
        say(f"{folder}: {before - waiting(folder)} things logged, {waiting(folder)} left")
    if reasons:
        raise ConnectionError(f"{left} things are still not logged: {reasons[0]}. Start the tracker, or name another "
                              "one in tracking.uri, and run the command again")
    say(f"{logged} things logged, none left" if logged else f"nothing waits in {recipe.run_folder}")
    return {"logged": logged, "left": left}


def waiting_runs(folder: Path) -> list[Path]:
    """The runs, of the run or the runs in a folder, that have something to log."""
    runs = [folder, *sorted(path.parent for path in folder.glob(f"*/{FOLDER}"))]
    return [run for run in runs if waiting(run)]


if __name__ == "__main__":
    run(main)
