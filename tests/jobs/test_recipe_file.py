"""Recipes from files: paths, classes, worlds, the next command, and what is refused."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.cluster import SUBMITTED_JOB
from jobs.config import override
from jobs.counted_classes import for_classes, with_counted_classes
from jobs.recipes import RECIPES, find_recipe
from jobs.verb import chosen_recipe, next_command, resolved
from model.labels import ClassInfo, ClassTable

TABLE = ClassTable("own", tuple(ClassInfo(id, f"class {id}", id > 1, (id, 0, 0)) for id in range(4)))

MINE = '''
base = "tiny"

[dataset]
name = "vspw"
root = "data"

[stage_one.fit]
steps = 3

[stage_one.input.augment]
size = [32, 32]
'''


@pytest.fixture
def mine(tmp_path) -> Path:
    file = tmp_path / "beside my data" / "mine.toml"
    file.parent.mkdir()
    file.write_text(MINE)
    return file


def test_a_file_is_its_base_with_the_settings_that_it_gives(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = chosen_recipe("beside my data/mine.toml", ["stage_one.fit.log_every=1"])
    expected = override(find_recipe("tiny"), [
        "name=mine", f"file={mine}", "dataset.name=vspw", f"dataset.root={mine.parent / 'data'}", "world=null",
        "count_classes=true", "stage_one.fit.steps=3", "stage_one.input.augment.size=[32,32]",
        "stage_one.fit.log_every=1"])
    assert recipe == expected
    assert recipe.run_folder == tmp_path / "runs" / "mine"


def test_paths_are_relative_to_the_file_unless_they_are_absolute_or_of_a_home(mine, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    mine.write_text('base = "tiny"\nfolder = "runs/a"\nstage_one_from = "/far/run"\npredict.input = "~/films"\n')
    recipe = chosen_recipe(str(mine))
    assert recipe.folder == str(mine.parent / "runs/a")
    assert (recipe.stage_one_from, recipe.predict.input) == ("/far/run", "/home/somebody/films")
    assert recipe.world == find_recipe("tiny").world
    assert not recipe.count_classes


def test_every_path_in_a_file_is_relative_to_it_from_whatever_folder_a_verb_starts(mine, tmp_path, monkeypatch):
    mine.write_text("""
base = "tiny_vis"
folder = "results"
dataset.root = "."
predict.input = ["a.mp4", "~/b.mp4", "/c.mp4"]
predict.output = "out"
evaluation.video_sets = "sets.json"
stage_one.start_from = "start"
stage_one.input.streaming = true
stage_one.input.stream_from = "tars"
tracking.uri = "mlruns"

[stage_one.stills]
share = 0.5
dataset = {name = "coco_instance", root = "stills"}
""")
    monkeypatch.setenv("HOME", "/home/somebody")
    here = mine.parent
    (tmp_path / "elsewhere").mkdir()
    recipes = []
    for folder, name in ((here, "mine.toml"), (tmp_path / "elsewhere", "../beside my data/mine.toml"),
                         (tmp_path, str(mine))):
        monkeypatch.chdir(folder)
        recipes.append(resolved(chosen_recipe(name)))
    recipe = recipes[-1]
    assert [replace(other, file="") for other in recipes] == [replace(recipe, file="")] * 3
    assert recipe.folder == str(here / "results")
    assert recipe.dataset.root == str(here)
    assert recipe.predict.input == (str(here / "a.mp4"), "/home/somebody/b.mp4", "/c.mp4")
    assert (recipe.predict.output, recipe.evaluation.video_sets) == (str(here / "out"), str(here / "sets.json"))
    assert recipe.stage_one.start_from == str(here / "start")
    assert recipe.stage_one.input.stream_from == str(here / "tars")
    assert recipe.stage_one.stills.dataset.root == str(here / "stills")
    assert recipe.tracking.uri == str(here / "mlruns")


@pytest.mark.parametrize("uri", ["http://tracker:5000", "sqlite:///a.db", "databricks", "file:/a/b"])
def test_a_tracker_that_is_no_path_stays_as_it_is(uri):
    assert resolved(chosen_recipe("tiny", [f"tracking.uri={uri}"])).tracking.uri == uri


def test_a_tracker_in_a_home_is_found_there(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolved(chosen_recipe("tiny", ["tracking.uri=~/runs of mlflow"])).tracking.uri == (
        "/home/somebody/runs of mlflow")


def test_an_address_stays_one(mine):
    mine.write_text('base = "tiny"\ndataset.root = "s3://bucket/data"\n')
    assert chosen_recipe(str(mine)).dataset.root == "s3://bucket/data"


@pytest.mark.parametrize("lines", ['inference.resize = {short_side = 40}', '[inference.resize]\nshort_side = 40',
                                   '"inference.resize" = {short_side = 40}'])
def test_a_part_that_the_base_lacks_is_given_as_a_table(mine, lines):
    mine.write_text(f'base = "tiny_vis"\n{lines}\n')
    assert chosen_recipe(str(mine)).inference.resize.short_side == 40


def test_null_takes_a_part_away(mine):
    mine.write_text('base = "tiny"\nstage_two = "null"\n')
    assert chosen_recipe(str(mine)).stage_two is None


@pytest.mark.parametrize(("content", "message"), [
    ("steps = ", "not valid TOML"), ("[dataset]\nname = 'vspw'", 'needs a line such as base = "tiny_vis"'),
    ("base = 'tiney'", "there is no recipe 'tiney'; did you mean tiny"), ("base = 'other.toml'", "not 'other.toml'"),
    ("base = 'tiny'\n[stage_one.fit]\nstep = 1", r"--set stage_one.fit.step=1: FitConfig has no field 'step'"),
    ("base = 'tiny'\n[dataset]\nname = 'labelmee'", "Input should be 'vipseg'"),
    ("base = 'tiny'\nname = ''", "name='' cannot name the folder of a run"),
    ("base = 'tiny'\nname = '../x'", "name='../x' cannot name the folder"),
    ('base = "tiny"\nname = "a\\u0000b"', "cannot name the folder of a run"),
    ("base = 'tiny'\nstage_one.fit.steps = true", "Input should be a number, not true or false"),
    ("base = 'tiny'\nstage_one.optimizer.lr = nan", "Input should be a number, not NaN"),
    (f"base = 'tiny'\nx = {'[' * 2000 + ']' * 2000}", "nested too deeply")])
def test_what_is_no_recipe_is_refused_with_the_name_of_the_file(mine, content, message):
    mine.write_text(content)
    with pytest.raises(ValueError, match=message) as refused:
        chosen_recipe(str(mine))
    assert "mine.toml" in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_have_any_common_encoding_and_a_suffix_in_capitals(mine, encoding):
    capitals = mine.with_name("MINE.TOML")
    capitals.write_bytes('base = "tiny"\nname = "Größe"\n'.encode(encoding))
    assert chosen_recipe(str(capitals)).name == "Größe"


def test_texts_in_brackets_are_texts_and_lists_in_texts_are_lists(mine):
    mine.write_text('base = "tiny"\ndataset.root = "[a] b"\npredict.input = "[Group] film.mkv"\n')
    recipe = chosen_recipe(str(mine))
    assert (recipe.dataset.root, recipe.predict.input) == (str(mine.parent / "[a] b"),
                                                          str(mine.parent / "[Group] film.mkv"))
    mine.write_text("base = \"tiny\"\npredict.classes = '[\"disc\"]'\n")
    assert chosen_recipe(str(mine)).predict.classes == ("disc",)


def test_a_file_that_is_not_there_says_so():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.toml: there is no such file"):
        chosen_recipe("nowhere.toml")


def test_a_submitted_job_needs_the_absolute_path_of_the_file(mine, monkeypatch):
    monkeypatch.setenv(SUBMITTED_JOB, "{}")
    monkeypatch.chdir(mine.parent)
    with pytest.raises(ValueError, match=r"--recipe mine\.toml: .* e\.g\. --recipe /data/mine\.toml"):
        chosen_recipe("mine.toml")
    assert chosen_recipe(str(mine)).dataset.root == str(mine.parent / "data")


def test_a_world_gives_way_to_data_of_ones_own_unless_it_is_spoken_of():
    assert chosen_recipe("tiny", ["dataset.root=/data"]).world is None
    assert chosen_recipe("tiny", ["dataset.root=worlds/a", "world.frames=5"]).world.frames == 5


def test_the_next_command_names_the_file_and_only_what_the_command_line_changed(mine):
    recipe = for_classes(resolved(chosen_recipe(str(mine), ["stage_one.fit.seed=7"])), TABLE)
    words = shlex.split(next_command(recipe, "make_shards").removeprefix("next: "))
    assert words[:5] == ["python", "-m", "jobs.train_stage_one", "--recipe", str(mine)]
    assert words[5:] == ["--set", "stage_one.fit.seed=7"]
    assert for_classes(resolved(chosen_recipe(words[4], words[6::2])), TABLE) == recipe


def test_classes_are_those_of_the_shards_once_these_are_made(mine):
    recipe = resolved(chosen_recipe(str(mine), [f"folder={mine.parent}"]))
    assert with_counted_classes(recipe) == recipe
    counted = for_classes(recipe, TABLE)
    assert counted.stage_one.segmenter.num_classes == counted.stage_two.head.num_classes == 4


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("tiny")])
def test_every_family_takes_the_classes_of_the_data(name):
    counted = for_classes(find_recipe(name), TABLE)
    one = counted.stage_one
    assert one.segmenter.num_classes == 4
    assert counted.head is None or counted.head.num_classes == 4
    reserved = [part.stuff_classes for part in (one.segmenter, one.losses, one.linking)
                if getattr(part, "stuff_classes", ())]
    assert reserved in ([], [(0, 1)] * 3)
