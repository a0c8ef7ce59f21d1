"""A verb that is started from a shell prints its first line within 5 seconds and is never silent for 10."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.config import assignments, to_json
from jobs.recipes import find_recipe
from jobs.recipes.schema import Recipe
from pipeline.visualise.video_writer import VideoWriter
from tests import untrained_run
from tests.untrained_run import moving_square, untrained_on_shards

pytestmark = pytest.mark.slow
FRAMES = 240
VERBS = {"predict": "predicting 1/1 videos", "evaluate": "evaluating 1/1 videos",
         "cache_queries": "caching 1/1 videos"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    """An untrained segmenter, and shards of one long video."""
    folder = tmp_path_factory.mktemp("long")
    plain = untrained_run.tiny_run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(untrained_run, "tiny_run", lambda path: replace(
            plain(path), world=replace(plain(path).world, videos_train=1, videos_val=1, frames=FRAMES)))
        recipe = untrained_on_shards(folder / "run")
    with VideoWriter(folder / "film.mp4", fps=6) as video:
        for frame in range(FRAMES):
            video.write(moving_square(frame % 12))
    return replace(recipe, predict=replace(recipe.predict, input=str(folder / "film.mp4")))


def lines_of(verb: str, recipe: Recipe, folder: Path) -> tuple[list[tuple[float, str]], float]:
    """The lines of a verb in a process of its own, with the seconds since its start; and when it ended."""
    changes = assignments(to_json(find_recipe("tiny")), to_json(recipe))
    given = [word for change in changes for word in ("--set", change)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("RAY_ADDRESS", None)
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", f"jobs.{verb}", "--recipe", "tiny", *given], cwd=folder, text=True,
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        lines = [(time.monotonic() - started, line.rstrip()) for line in process.stdout]
    assert process.returncode == 0, lines[-5:]
    return lines, time.monotonic() - started


@pytest.mark.parametrize("in_process", [pytest.param(True, id="here"), pytest.param(
    False, marks=[pytest.mark.ray, pytest.mark.long], id="on Ray")])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_heard_of_from_the_start_to_the_end(recipe, tmp_path, verb, in_process):
    recipe = replace(recipe, cluster=replace(recipe.cluster, in_process=in_process, actors=1),
                     predict=replace(recipe.predict, output=str(tmp_path / "out"), mode="near_online"),
                     evaluation=replace(recipe.evaluation, mode="near_online", output=str(tmp_path / "scores")))
    for part in (recipe.run_folder / "cache").glob("*/*"):
        part.unlink()
    lines, ended = lines_of(verb, recipe, tmp_path)
    assert lines[0][1] == f"jobs.{verb}: loading the libraries"
    times = [0.0, *(seconds for seconds, _ in lines), ended]
    silence = max(later - earlier for earlier, later in itertools.pairwise(times))
    print(f"{verb}: first line {lines[0][0]:.2f} s, longest silence {silence:.1f} s, end {ended:.1f} s")
    assert lines[0][0] < 5
    assert silence < 10
    assert any(VERBS[verb] in line for _, line in lines)
    assert json.loads(lines[-1][1])["verb"] == f"jobs.{verb}"
