"""What README, documents and manuals tell people to type and to open is there."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from jobs.config import override
from jobs.recipes import find_recipe
from jobs.verb import given_paths

ROOT = Path(__file__).resolve().parents[1]
TEXTS = sorted([ROOT / "README.md", ROOT / "ray_cluster.yaml", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"),
                *ROOT.glob("jobs/*.py"), *ROOT.glob("benchmarks/*.py")])
OF_A_RECIPE = {"make_shards", "train_stage_one", "cache_queries", "train_stage_two", "evaluate", "predict", "demo",
               "verify_shards"}


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
    room, verb = words[0].split(".")
    if room != "jobs" or verb not in OF_A_RECIPE:
        return
    given = {name: [value for word, value in pairwise(words) if word == name] for name in ("--recipe", "--set")}
    recipe = override(find_recipe(*given["--recipe"] or [{"demo": "demo"}.get(verb, "tiny")]), given["--set"])
    assert not submitted or all(Path(path).is_absolute() for path in given_paths(recipe).values()), given_paths(recipe)
    if verb == "train_stage_two" and recipe.folder:
        assert recipe.stage_one_from, "a new folder holds no cache: stage_one_from says where it lies"


def test_every_file_and_folder_of_the_tree_exists():
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    named = re.findall(r"^([\w/]+)", tree, flags=re.M) + re.findall(r"[\w/]+\.md|(?<= )[a-z]+/", tree)
    assert len(named) > 7
    folders = [ROOT, *(path for path in ROOT.iterdir() if path.is_dir())]
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []
