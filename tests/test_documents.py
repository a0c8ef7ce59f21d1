"""What README, documents and manuals tell people to type and to open is there."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from jobs.config import override
from jobs.models import save_model, segmenter_card, untrained_segmenter
from jobs.recipe_file import is_recipe_file
from jobs.recipes import find_recipe
from jobs.sweeping.plan import read_axis
from jobs.verb import given_paths
from pipeline.datasets.synthetic import world_classes
from pipeline.visualise.video_writer import VideoWriter

ROOT = Path(__file__).resolve().parents[1]
TEXTS = sorted([ROOT / "README.md", ROOT / "ray_cluster.yaml", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"),
                *ROOT.glob("jobs/*.py"), *ROOT.glob("benchmarks/*.py")])
OF_A_RECIPE = {"check_dataset", "make_shards", "train_stage_one", "cache_queries", "train_stage_two", "evaluate",
               "predict", "demo", "verify_shards", "verify_cache", "inspect_cache", "sweep", "report", "promote"}


def commands(path: Path) -> list[tuple[bool, list[str]]]:
    """Every `python -m ...` of a document or a manual that can be typed as it stands: no <...>, no NAME to fill in.

    Whether it is submitted as a job, and its words.
    """
    text = path.read_text()
    text = re.sub(r"\\\n[# ]*", "", ast.get_docstring(ast.parse(text)) or "" if path.suffix == ".py" else text)
    found = re.findall(r"(ray job submit .*)?python -m ((?:jobs|benchmarks)\.\w+.*)", text)
    found = [(bool(submit), re.split(r"`| {2,}#", command)[0]) for submit, command in found]
    return [(submitted, shlex.split(command)) for submitted, command in found
            if not re.search(r"<|\.\.\.|\b[A-Z]{4,}\b", command)]


TYPED = [pytest.param(submitted, words, id=f"{path.relative_to(ROOT)}:{' '.join(words)[:60]}")
         for path in TEXTS for submitted, words in commands(path)]


def test_there_are_commands_to_look_at():
    assert len(TYPED) > 30
    assert sum(param.values[0] for param in TYPED) >= 1      # submitted
    assert {param.values[1][0].removeprefix("jobs.") for param in TYPED} >= OF_A_RECIPE


@pytest.mark.parametrize(("submitted", "words"), TYPED)
def test_a_command_names_a_module_a_recipe_and_fields_that_exist(submitted, words):
    assert importlib.util.find_spec(words[0]) is not None
    verb = words[0].split(".")[1]
    if verb not in OF_A_RECIPE and "--recipe" not in words:
        return
    given = {name: [value for word, value in pairwise(words) if word == name]
             for name in ("--recipe", "--set", "--over")}
    if any(map(is_recipe_file, given["--recipe"])):
        return      # tests/own_data/test_page.py executes it
    named = find_recipe(*given["--recipe"] or [{"demo": "demo"}.get(verb, "tiny")])
    recipe = override(named, given["--set"])
    for axis in map(read_axis, given["--over"]):
        override(recipe, [axis.draw(np.random.default_rng(0))])
    paths = [path for paths in given_paths(recipe).values() for path in paths]
    assert not submitted or all(Path(path).is_absolute() for path in paths), paths
    if verb == "train_stage_two" and recipe.folder != named.folder:
        assert recipe.stage_one_from, "a new folder holds no cache: stage_one_from says where it lies"


def test_every_file_and_folder_of_the_tree_exists():
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    named = re.findall(r"^([\w/]+)", tree, flags=re.M) + re.findall(r"[\w/]+\.md|(?<= )[a-z]+/", tree)
    assert len(named) > 7
    folders = [ROOT, *(path for path in ROOT.iterdir() if path.is_dir())]
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []


def test_the_python_of_the_readme_runs_in_the_folder_of_a_finished_run(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    recipe = find_recipe("tiny")
    save_model(tmp_path / "runs/demo/stage_one/model", untrained_segmenter(recipe).state_dict(),
               segmenter_card(recipe, world_classes(recipe.world), shards=""))
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    with VideoWriter(tmp_path / "my_video.mp4", fps=6.0) as writer:
        for frame in frames:
            writer.write(frame)
    monkeypatch.chdir(tmp_path)
    names = {"frames": iter(frames)}
    for block in blocks:
        exec(block, names)
    assert len(names["video"].frames) == len(frames)
    streamed = capsys.readouterr().out.splitlines()
    assert [line.count("'") // 2 for line in streamed] == [2, 2, 1]        # frame names, in clips of two


@pytest.mark.parametrize("page", ["architecture.md", "glossary.md", "reproduce.md"])
def test_every_file_and_folder_that_a_document_names_exists(page):
    named = re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / "docs" / page).read_text())
    rooms = [ROOT / room for room in ("model", "pipeline", "jobs", "infra", "tests")]
    there = {f"/{path.relative_to(ROOT)}{'/' * path.is_dir()}" for room in rooms for path in (room, *room.rglob("*"))}
    assert named
    assert [name for name in named if not any(path.endswith(f"/{name}") for path in there)] == []
