"""A whole run made once for all tests that look at its results, and copies of it that a test may change."""

from __future__ import annotations

import fcntl
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs import cache_queries, evaluate, make_shards, train_stage_one, train_stage_two
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from jobs.verb import resolved
from model.postprocess.panoptic import PanopticConfig
from pipeline.shards import ShardSet, StoredVideo

# Six steps teach nothing: with thresholds this low the results are full of segments all the same.
EVERYTHING = PanopticConfig(thing=0.0, stuff=0.0, pixel=0.05, overlap=0.0)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its recipe, and the last line of every verb."""

    recipe: Recipe
    said: dict[str, dict[str, Any]]

    def copy(self, folder: Path) -> Recipe:
        """The same run in another folder, to be changed there."""
        shutil.copytree(self.recipe.run_folder, folder)
        return replace(self.recipe, folder=str(folder))


def tiny_run(folder: Path, **changes: Any) -> Recipe:
    """The recipe `tiny` in a folder, with fields replaced."""
    recipe = find_recipe("tiny")
    inference = replace(recipe.inference, panoptic=EVERYTHING)
    return resolved(replace(recipe, folder=str(folder), **{"inference": inference, **changes}))


def scored(recipe: Recipe, **changes: Any) -> Recipe:
    """The same recipe with fields of its evaluation replaced."""
    return replace(recipe, evaluation=replace(recipe.evaluation, **changes))


def inferred(recipe: Recipe, **changes: Any) -> Recipe:
    """The same recipe with fields of its inference replaced."""
    return replace(recipe, inference=replace(recipe.inference, **changes))


def here(recipe: Recipe) -> Recipe:
    """The same recipe, all in this process, where what is tested is not how Ray shares it out."""
    return replace(recipe, cluster=replace(recipe.cluster, in_process=True))


def damage(shards: ShardSet, video: StoredVideo) -> None:
    """Overwrite the start of every JPEG of a video in its tar."""
    with (shards.folder / shards.manifest["shards"][video.shard]["name"]).open("r+b") as tar:
        for frame in video.frames:
            tar.seek(frame.image[0])
            tar.write(bytes(60))


def make_run(folder: Path, cluster: Any) -> FinishedRun:
    """All verbs once. Test processes that share `folder` make it once between them; `cluster()` starts Ray."""
    recipe = tiny_run(folder / "run")
    done = folder / "said.json"
    with _only_one(folder):
        if not done.exists():
            cluster()
            said = {verb.__name__.removeprefix("jobs."): verb.main(recipe) for verb in (
                make_shards, train_stage_one, cache_queries, train_stage_two)}
            for mode in ("near_online", "offline"):
                said[mode] = evaluate.main(scored(recipe, mode=mode))
            done.write_text(json.dumps(said, default=str))
    return FinishedRun(recipe, json.loads(done.read_text()))


@contextmanager
def _only_one(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
