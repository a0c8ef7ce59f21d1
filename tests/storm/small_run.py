"""The run that the storm tears at: a few small videos, all verbs in seconds, kept as it was before each of them."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import av
import pyarrow.parquet as pq

from jobs import (
    cache_queries,
    evaluate,
    make_shards,
    predict,
    sweep,
    sync_tracking,
    train_stage_one,
    train_stage_two,
    verify_shards,
)
from jobs.recipes.schema import LinksStageConfig, Recipe
from jobs.verb import Verb, environment, guarded
from pipeline.files import digest, sha256_of
from pipeline.foreign_files import whole_json
from tests.ray_head import Head
from tests.runs import here, scored, tiny_run
from tests.storm.forked import Ended, forked
from tests.storm.kill_points import count_changes
from tests.untrained_run import predicting, write_video

SWEPT = sweep.SweepFlags(over=("stage_two.optimizer.lr=1e-3,1e-4",), together=1)


@wraps(sweep.main)
def sweep_two(recipe: Recipe) -> dict[str, Any]:
    """Two trials, one after the other."""
    return sweep.main(recipe, SWEPT)


VERBS: dict[str, Verb] = {
    "make_shards": make_shards.main, "train_stage_one": train_stage_one.main, "cache_queries": cache_queries.main,
    "train_links": train_stage_two.main, "train_stage_two": train_stage_two.main, "sweep": sweep_two,
    "evaluate": evaluate.main, "predict": predict.main}
ORDER = tuple(VERBS)
VERIFY = "verify_shards"    # makes nothing
SYNC = "sync_tracking"
OTHERS: dict[str, Verb] = {VERIFY: verify_shards.main, SYNC: sync_tracking.main}
FINISHED = "finished"       # name of the last state

# Files, and fields of files, that two runs of the same recipe need not share: MLflow's, and those that tell times.
PRIVATE = ("tracking.json", "progress.jsonl")
WAITING = "tracking/"       # start of the names of what is still to be logged
PASSING = {"scores.json": "frames_per_second", "model.json": "code"}
PARTIAL_NAME = re.compile(r"\.[0-9a-f]{8}-\d+-[0-9a-f]{8}\.partial$")
COSTS = "costs.json"    # in the folder of the states, once all are made
VIDEOS = "videos"       # folder of what is predicted, beside that of the run


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a verb takes undisturbed."""

    seconds: float
    changes: int            # of files and folders, as `kill_points` counts them
    largest: int            # bytes of the largest file that it writes
    megabytes: int          # the most memory that its process held


class SmallRun:
    """The states of a run before and after each verb, and the files that belong to each. It is made on first use."""

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self.folder = folder
        self.seed = seed
        self.costs: dict[str, Cost] = {}

    def make(self) -> None:
        """Run all verbs undisturbed, unless an earlier storm has. Raises RuntimeError when one of them fails."""
        place = self.place
        environment()       # which no forked verb has to read then
        if (costs := whole_json(self.folder / COSTS)) is not None:
            self.costs = {verb: Cost(**cost) for verb, cost in costs.items()}
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        (place / VIDEOS).mkdir(parents=True)
        for name, frames in (("short", 2), ("long", 6), ("other", 3)):
            write_video(place / VIDEOS / f"{name}.mp4", frames)
        for verb in ORDER:
            shutil.copytree(place, self.folder / "before" / verb)
            counter = self.folder / f"{verb}.count"
            ended = self.run(verb, before=lambda counter=counter: count_changes(place, counter))
            if ended.code:
                raise RuntimeError(f"{verb} fails without any fault:\n{ended.said}")
            changes = int(counter.read_text())
            self.costs[verb] = Cost(seconds=ended.seconds, changes=changes, megabytes=ended.megabytes,
                                    largest=largest_new_file(self.folder / "before" / verb, place))
        place.rename(self.folder / "before" / FINISHED)
        costs = {verb: asdict(cost) for verb, cost in self.costs.items()}
        (self.folder / COSTS).write_text(json.dumps(costs))

    @property
    def place(self) -> Path:
        """The folder of the run that is torn at, and of its tracker. Cards name it, so it is the same in all trials."""
        return self.folder / "place"

    @cached_property
    def head(self) -> Head:
        """A cluster that the verbs may join, which is started on first use and lives until `close`."""
        head = Head(self.folder, token=os.environ["RAY_AUTH_TOKEN"])
        head.wait_until_ready()
        return head

    def close(self) -> None:
        """End the cluster, if there is one."""
        if "head" in self.__dict__:
            self.head.close()

    def bring(self, state: str) -> None:
        """Bring the place into the state before a verb, or into the last one."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.folder / "before" / state, self.place, symlinks=True)

    def cost(self, verb: str) -> Cost:
        """What a verb takes undisturbed; one that makes nothing takes no more than the first."""
        return self.costs.get(verb, self.costs[ORDER[0]])

    def after(self, verb: str) -> str:
        """The name of the state that a verb leaves."""
        return (*ORDER, FINISHED)[ORDER.index(verb) + 1]

    def recipe(self, verb: str) -> Recipe:
        """The recipe of the run as a verb takes it. It needs no cluster."""
        return of_verb(small_recipe(self.place / "run", self.seed), verb, videos=self.place / VIDEOS)

    def run(self, verb: str, *, before: Callable[[], None] = lambda: None,
            change: Callable[[Recipe], Recipe] = lambda recipe: recipe, **limits: Any) -> Ended:
        """Run a verb in a forked process. before: called in that process first. change: of the recipe."""
        def call() -> int:
            logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
            before()
            return guarded((VERBS | OTHERS)[verb], lambda: change(self.recipe(verb)))

        return forked(call, self.folder / "log.txt", **limits)

    def differences(self, state: str, *, passing: tuple[str, ...] = ()) -> dict[str, str]:
        """The files of the place that are not those of a state: name -> reason. Empty: all bytes are equal.

        passing: fields of cards and scores that need not be equal.
        """
        wanted = contents(self.folder / "before" / state, passing)
        present = contents(self.place, passing)
        return {name: "missing" if name not in present else "left over" if name not in wanted else "differs"
                for name in sorted(wanted.keys() | present.keys()) if wanted.get(name) != present.get(name)}


def small_recipe(folder: Path, seed: int = 0) -> Recipe:
    """The recipe `tiny` with fewer videos and steps and more checkpoints, in this process."""
    recipe = here(tiny_run(folder))
    one = recipe.stage_one
    two = recipe.stage_two
    fit = {"steps": 4, "checkpoint_every": 1, "log_every": 1, "seed": seed}
    return replace(recipe, world=replace(recipe.world, videos_train=4, videos_val=3, frames=5, seed=seed),
                   shards=replace(recipe.shards, min_shards=2),
                   stage_one=replace(one, input=replace(one.input, batch_size=2), fit=replace(one.fit, **fit)),
                   stage_two=replace(two, input=replace(two.input, clips=2, batch_size=2),
                                     fit=replace(two.fit, **fit), links=small_links(fit)))


def of_verb(recipe: Recipe, verb: str, *, videos: Path) -> Recipe:
    """A recipe as a verb takes it: stage two trains either links or the head. videos: what is predicted."""
    match verb:
        case "train_links":
            return replace(recipe, stage_two=replace(recipe.stage_two, head=None))
        case "train_stage_two":
            return replace(recipe, stage_two=replace(recipe.stage_two, links=None))
        case "evaluate":
            return scored(recipe, mode="offline")
        case "predict":
            return predicting(recipe, videos, recipe.run_folder / "predictions")
    return recipe


def small_links(fit: dict[str, int]) -> LinksStageConfig:
    """Learned links that are trained in a few steps."""
    links = LinksStageConfig()
    return replace(links, input=replace(links.input, clips=2, batch_size=2), fit=replace(links.fit, **fit))


def largest_new_file(before: Path, after: Path) -> int:
    """Bytes of the largest file of a folder that another one does not have."""
    return max((path.stat().st_size for path in after.rglob("*")
                if path.is_file() and not (before / path.relative_to(after)).exists()), default=0)


def contents(place: Path, passing: tuple[str, ...] = ()) -> dict[str, str]:
    """Name -> digest of every file of a run that has to be the same whenever it is made, half written ones included.

    passing: fields of cards and scores that are left out.
    """
    run = place / "run"
    names = {str(path.relative_to(run)): path for path in sorted(run.rglob("*")) if path.is_file()}
    return {name: _digest(path, passing) for name, path in names.items()
            if path.name not in PRIVATE and not name.startswith(WAITING)}


def is_partial(name: str) -> bool:
    """Whether a file, or a folder that it lies in, has the name of one that a process of the project is writing."""
    return any(PARTIAL_NAME.search(part) for part in Path(name).parts)


def _digest(path: Path, passing: tuple[str, ...]) -> str:
    """sha256 of a file; of the scores without the speed of this machine, of a card without the commit of the code.

    Of a video the frames without their bits: the encoder does not give the same ones twice where a machine is busy. Of
    the trials of a sweep all but their duration. passing: further fields of a card that are left out.
    """
    if path.suffix == ".mp4":
        with av.open(str(path)) as video:
            return str([(frame.width, frame.height, frame.pts) for frame in video.decode(video=0)])
    if path.name == "trials.parquet":
        return str(pq.read_table(path).drop_columns(["seconds", "result"]).to_pylist())
    left_out = "seconds" if path.parent.name == "trials" else PASSING.get(path.name)
    content = whole_json(path) if left_out else None
    if content is None:
        return sha256_of(path)
    return digest({name: value for name, value in content.items() if name not in (left_out, *passing)})
