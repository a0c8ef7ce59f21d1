"""What all verbs share: the command line, the connection to Ray, exit codes and the summary line.

    python -m jobs.<verb> --recipe NAME [--set path.to.field=value ...]

Exit codes: 0 done, 2 usage or configuration, 3 data, 4 things that do not belong together, 1 anything else.
The last line printed is the summary as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import ray
import tyro

from jobs.config import config_digest, override, to_json
from jobs.recipes import find_recipe
from jobs.recipes.schema import ClusterConfig, Recipe
from jobs.training.checkpoint import SUBMITTED_JOB, code_version
from jobs.training.progress import say
from jobs.training.tracking import RunHandle, Tracker, close_run, open_run
from pipeline.errors import BadInput, Mismatch

# Large buffers are reused instead of mapped anew for every frame (up to 2.6 times faster decoding, see
# docs/log.md); one thread per process, since processes are the unit of parallelism here.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "536870912", "OMP_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}

# First match wins: a Mismatch and a BadInput are ValueErrors too.
EXIT_CODES = ((Mismatch, 4), (BadInput, 3), (ValueError, 2), (FileNotFoundError, 2), (ConnectionError, 2),
              (ArithmeticError, 2), (OSError, 1))

Verb = Callable[[Recipe], dict[str, Any]]


def run(verb: Verb, *, default_recipe: str = "tiny") -> None:
    """Parse the command line, run the verb, print its summary, leave with its exit code."""
    def command(recipe: str = default_recipe, set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
                strict: bool = False, dry_run: bool = False) -> int:
        """Run this verb.

        Args:
            recipe: name of a recipe; an unknown name lists all of them.
            set: path.to.field=value, may be given several times.
            strict: stop at the first bad video instead of skipping and counting it.
            dry_run: print the resolved recipe and leave.
        """
        changes = [*set, *(["strict=true"] if strict else [])]
        return guarded(verb, lambda: override(find_recipe(recipe), changes), dry_run=dry_run)

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(tyro.cli(command, description=sys.modules[verb.__module__].__doc__, prog=f"python -m {_module(verb)}"))


def guarded(verb: Verb, recipe_of: Callable[[], Recipe], *, dry_run: bool = False) -> int:
    """Run a verb and turn what a user can cause into one clear line and an exit code."""
    try:
        recipe = recipe_of()
        if dry_run:
            say(json.dumps(to_json(recipe), indent=1))
            return 0
        refuse_relative_paths(recipe)
        say(json.dumps({"verb": _module(verb), **verb(resolved(recipe))}, default=str))
        return 0
    except tuple(kind for kind, _ in EXIT_CODES) as error:
        print("\n  ".join([f"error: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr, flush=True)
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def inside_a_job() -> bool:
    """Whether this process was started by `ray job submit`."""
    return SUBMITTED_JOB in os.environ


def refuse_relative_paths(recipe: Recipe) -> None:
    """A submitted job runs in an unpacked copy of the code: relative folders would vanish with it."""
    relative = {name: path for name, path in given_paths(recipe).items() if not Path(path).is_absolute()}
    if inside_a_job() and relative:
        name, path = next(iter(relative.items()))
        raise ValueError(f"relative: {', '.join(relative)}. A submitted job runs in a copy of the code, so give "
                         f"absolute paths that all machines see, e.g. --set {name}={Path('/data') / path}")


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths: workers run in folders of their own."""
    return override(recipe, [f"{name}={Path(path).absolute()}" for name, path in given_paths(recipe).items()])


def given_paths(recipe: Recipe) -> dict[str, str]:
    """Field -> path, of all files and folders a recipe names. A synthetic world lies inside the road's folder."""
    paths = {"folder": recipe.folder or f"runs/{recipe.name}",
             "stage_one_from": recipe.stage_one_from,
             "dataset.root": "" if recipe.world else recipe.dataset.root,
             "stage_one.stills.dataset.root": recipe.stage_one.stills.dataset.root if recipe.stage_one.stills else "",
             "stage_one.start_from": recipe.stage_one.start_from,
             "evaluation.predictions": recipe.evaluation.predictions,
             "evaluation.video_sets": recipe.evaluation.video_sets,
             "predict.input": recipe.predict.input, "predict.output": recipe.predict.output}
    return {name: path for name, path in paths.items() if path}


def next_command(recipe: Recipe, verb: str, *changes: str) -> str:
    """The line that says which verb comes next, in the folders of this run. changes: further `path=value`."""
    if recipe.stage_one_from:
        changes = (f"stage_one_from={recipe.stage_one_from}", *changes)
    if recipe.road != replace(recipe, folder="").road:
        changes = (f"folder={recipe.road}", *changes)
    settings = [word for change in changes for word in ("--set", change)]
    return "next: " + shlex.join(["python", "-m", f"jobs.{verb}", "--recipe", recipe.name, *settings])


def refuse_nothing_done(done: Sized, skipped: Sequence[str], *, given: Path | str) -> None:
    """Raise BadInput quoting the first message when every video of `given` was skipped."""
    if skipped and not done:
        raise BadInput("no-video", f"none of {len(skipped)} videos could be read; the first: {skipped[0]}", file=given)


def connect(cluster: ClusterConfig) -> None:
    """Join the cluster this process belongs to, or start a small one on this machine. Idempotent.

    Under `cluster.in_process` there is none.
    """
    if cluster.in_process or ray.is_initialized():
        return
    environment = {"env_vars": worker_environment()}
    if inside_a_job() or os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", runtime_env=environment, log_to_driver=True)
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")      # nobody takes this machine away from us
    # Ray Train watches its own controller through the dashboard's state service and complains every second without it.
    ray.init(num_cpus=cluster.local_cpus, include_dashboard=True, runtime_env=environment,
             object_store_memory=cluster.object_store_mb * 2**20, log_to_driver=True, logging_level="warning")


def worker_environment() -> dict[str, str]:
    """Variables of worker processes, without those a submitted job has set itself: Ray refuses to hear them twice."""
    job = json.loads(os.environ.get(SUBMITTED_JOB, "{}"))
    chosen = job.get("runtime_env", {}).get("env_vars", {})
    return {name: value for name, value in WORKER_ENVIRONMENT.items() if name not in chosen}


class recorded:
    """`with recorded(recipe, "evaluate") as tracker:` the MLflow run of a verb, closed as finished or failed."""

    def __init__(self, recipe: Recipe, verb: str, **tags: Any) -> None:
        self.recipe = recipe
        self.verb = verb
        version = code_version()
        self.tags = {"recipe": recipe.name, "config_digest": config_digest(recipe), "code_commit": version["commit"],
                     "code_changed": version["changed"], **tags}

    def __enter__(self) -> Tracker:
        handle: RunHandle = open_run(self.recipe.tracking, folder=self.recipe.road, road=self.recipe.name,
                                     verb=self.verb, tags={k: str(v) for k, v in self.tags.items()})
        self.tracker = Tracker(handle)
        self.tracker.json("recipe.json", to_json(self.recipe))
        self.tracker.json("environment.json", environment())
        return self.tracker

    def __exit__(self, kind, error, trace) -> None:
        self.tracker.finish(failed=kind is not None)
        if kind is None:
            close_run(self.recipe.road, self.verb)


def environment() -> dict[str, Any]:
    """Versions of what was used, for the record."""
    from importlib.metadata import distributions
    return {"python": sys.version.split()[0], "packages": {d.name: d.version for d in distributions()}}


def _module(verb: Verb) -> str:
    return "jobs." + Path(sys.modules[verb.__module__].__file__).stem
