"""The command line: a mistake ends the command in its first second, with one clear line and an exit code."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tempfile
from dataclasses import replace

import pytest
from ray.exceptions import LocalRayletDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

from jobs import make_shards
from jobs.config import override
from jobs.recipes import RECIPES, find_recipe
from jobs.verb import chosen_recipe, command_line, given_paths, guarded, refuse_relative_paths, resolved, run
from pipeline import store
from pipeline.errors import BadInput, Mismatch
from tests.runs import here


def typed(monkeypatch, capsys, verb, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command line."""
    monkeypatch.setattr(sys, "argv", ["verb", *words])
    with pytest.raises(SystemExit) as caught:
        run(verb)
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


@pytest.fixture
def command(monkeypatch, capsys):
    return lambda *words: typed(monkeypatch, capsys, make_shards.main, *words)


def test_an_unknown_recipe_lists_the_nearest_and_all(command):
    code, _, error = command("--recipe", "tinny")
    assert code == 2
    assert "there is no recipe 'tinny'; did you mean tiny" in error
    assert all(name in error for name in RECIPES)


@pytest.mark.parametrize(("assignment", "message"), [
    ("stage_one.fit.steps=many", "--set stage_one.fit.steps=many: expected int"),
    ("stage_one.fit.stepz=3", "FitConfig has no field 'stepz'; did you mean ['steps'"),
    ("stage_one.input.batch_size=1", "batch_size=1 is shared by 2 workers"),
    ("cluster.workers=two", "expected int"),
    ("evaluation.mode=online", "expected"),
    ("folder", "--set takes path=value"),
])
def test_a_wrong_override_is_a_usage_error_that_names_field_and_type(command, assignment, message):
    code, _, error = command("--set", assignment)
    assert code == 2
    assert message in error
    assert error.count("error:") == 1
    assert "Traceback" not in error


def test_an_option_that_does_not_exist_is_a_usage_error(command):
    code, out, error = command("--resume")
    assert code == 2
    assert "--resume" in out + error


def test_several_overrides_and_strict_arrive_in_the_recipe(command, tmp_path):
    code, out, _ = command("--recipe", "tiny", "--set", f"folder={tmp_path}", "--set", "stage_one.fit.steps=9",
                           "--strict", "--dry-run")
    assert code == 0
    recipe = json.loads(out)
    assert (recipe["folder"], recipe["stage_one"]["fit"]["steps"], recipe["strict"]) == (str(tmp_path), 9, True)


def test_the_help_is_the_manual_of_the_verb(command):
    code, out, _ = command("--help")
    assert code == 0
    assert "WebDataset tar shards" in out
    assert "python -m jobs.make_shards --recipe tiny" in out


def test_the_last_line_is_the_summary_as_json(tmp_path, capsys):
    def verb(recipe):
        print("working")
        return {"folder": recipe.folder, "videos": 3}
    assert guarded(verb, lambda: replace(find_recipe("tiny"), folder=str(tmp_path))) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"verb": "jobs.test_verb", "folder": str(tmp_path), "videos": 3}


@pytest.mark.parametrize(("error", "code"), [
    (ValueError("a setting"), 2), (FileNotFoundError("a folder"), 2), (ConnectionError("a tracker"), 2),
    (ArithmeticError("a loss"), 2), (OSError("a disk"), 1),
    (BadInput("cut", "a file", cure="Copy it again."), 3), (Mismatch("a cache"), 4)])
def test_an_error_that_a_user_can_cause_is_one_line_with_its_exit_code(error, code, capsys):
    error.add_note("while doing something")

    def verb(_):
        raise error
    assert guarded(verb, lambda: find_recipe("tiny")) == code
    printed = capsys.readouterr().err
    assert printed.startswith("error: a ")
    assert "while doing something" in printed


@pytest.mark.parametrize("error", [LocalRayletDiedError(), RayActorError(error_msg="The actor died."),
                                   OutOfMemoryError("A task was killed."), WorkerCrashedError()])
def test_a_process_of_ray_that_is_gone_is_one_line_with_a_cure(error, capsys):
    def verb(_):
        raise error
    assert guarded(verb, lambda: find_recipe("tiny")) == 1
    first, cure = capsys.readouterr().err.strip().splitlines()
    assert first == f"error: Ray lost a process of the verb: {str(error).splitlines()[0]}"
    assert "run the same command again" in cure


@pytest.mark.parametrize("error", [KeyError("a bug"), RayActorError(actor_init_failed=True)])
def test_an_error_in_the_code_keeps_its_traceback(error):
    def verb(_):
        raise error
    with pytest.raises(type(error)):
        guarded(verb, lambda: find_recipe("tiny"))


def test_workers_get_absolute_paths_and_a_world_stays_in_the_folder_of_its_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = find_recipe("tiny")
    recipe = resolved(replace(recipe, predict=replace(recipe.predict, input="film.mp4", output="out")))
    shared = resolved(replace(recipe, folder="", stage_one_from="runs/first"))
    assert (shared.run_folder, shared.stage_one_run) == (tmp_path / "runs" / "tiny", tmp_path / "runs" / "first")
    assert shared.data_root == tmp_path / "runs" / "first" / "world"
    other = resolved(replace(shared, shards_from="runs/shards"))
    assert (other.shards_of("val"), other.stage_one_run) == (tmp_path / "runs/shards/shards/val", shared.stage_one_run)
    assert other.data_root == tmp_path / "runs" / "shards" / "world"
    assert recipe.folder == str(tmp_path / "runs" / "tiny")
    assert recipe.data_root == tmp_path / "runs" / "tiny" / "world"
    assert (recipe.predict.input, recipe.predict.output) == (str(tmp_path / "film.mp4"), str(tmp_path / "out"))
    assert resolved(recipe) == recipe
    assert resolved(find_recipe("vipseg_video_kmax_r50")).dataset.root == str(tmp_path / "data" / "VIPSeg_720P")


@pytest.mark.parametrize("folders", [{}, {"folder": "my runs/a"}, {"folder": "b", "stage_one_from": "my runs/a"}])
def test_the_next_command_keeps_the_folders_of_this_one(folders, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = resolved(replace(find_recipe("tiny"), **folders))
    words = shlex.split(command_line(recipe, "evaluate", "evaluation.mode=offline").removeprefix("next: "))
    assert words[:5] == ["python", "-m", "jobs.evaluate", "--recipe", "tiny"]
    assert set(words[5::2]) == {"--set"}
    again = resolved(override(find_recipe(words[4]), words[6::2]))
    assert again.evaluation.mode == "offline"
    assert (again.run_folder, again.stage_one_run) == (recipe.run_folder, recipe.stage_one_run)


def test_inside_a_job_a_relative_path_is_refused_by_field(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    recipe = replace(find_recipe("vipseg_video_kmax_r50"), folder="/runs/r50")
    with pytest.raises(ValueError, match=r"^relative paths in dataset\.root, stage_one\.start_from: .*"
                                         "--set dataset.root=/data/data/VIPSeg_720P"):
        refuse_relative_paths(given_paths(recipe))
    refuse_relative_paths(given_paths(replace(find_recipe("tiny"), folder="/runs/tiny")))
    with pytest.raises(ValueError, match=r"^relative paths in --output: .* --output /data/official\.pth"):
        refuse_relative_paths({"--source": ("/runs/tiny",), "--output": ("official.pth",)})


def test_a_tracker_that_cannot_be_reached_is_named_with_the_command_that_logs_later(tmp_path, capsys):
    recipe = here(replace(find_recipe("tiny"), folder=str(tmp_path / "run")))
    recipe = replace(recipe, tracking=replace(recipe.tracking, uri="http://127.0.0.1:9"),
                     world=replace(recipe.world, videos_train=1, videos_val=1))
    assert guarded(make_shards.main, lambda: recipe) == 0
    printed = capsys.readouterr().out
    assert "the tracker http://127.0.0.1:9 cannot be used" in printed
    assert "set tracking.uri" in printed
    assert re.search(r"tracking: \d+ things are not logged .* by python -m jobs.sync_tracking --recipe tiny --set",
                     printed)


@pytest.mark.parametrize("setting", ["folder", "stage_one_from", "shards_from", "stage_one.start_from",
                                     "evaluation.predictions", "predict.input", "predict.output"])
@pytest.mark.parametrize("address", ["https://host/run", "hdfs://host/run", "s3:/bucket/run"])
def test_an_address_is_refused_by_name_and_does_not_become_a_folder(setting, address, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = override(find_recipe("tiny"), [f"{setting}={address}"])
    for dry_run in (True, False):
        assert guarded(lambda _: pytest.fail("it ran"), lambda: recipe, dry_run=dry_run) == 2
        assert f"error: {setting}={address} is an address" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_at_an_address_is_refused_too(capsys):
    recipe = override(find_recipe("vipseg_video_kmax_r50"), ["dataset.root=https://host/VIPSeg"])
    assert guarded(lambda _: pytest.fail("it ran"), lambda: recipe) == 2
    assert "dataset.root=https://host/VIPSeg is an address" in capsys.readouterr().err


def test_a_run_in_a_store_is_not_recorded_in_a_file_of_one_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for changes in ([], ["tracking.uri=sqlite:////data/tracking.db"]):
        recipe = override(find_recipe("tiny"), ["folder=s3://bucket/run", *changes])
        assert guarded(lambda _: pytest.fail("it ran"), lambda recipe=recipe: recipe, uses=("tasks",)) == 2
        message = capsys.readouterr().err
        assert "folder=s3://bucket/run is in a store" in message
        assert "mlflow server --host 0.0.0.0 --port 5000" in message
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_used_is_named_before_anything_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a",
                        "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    recipe = override(find_recipe("tiny"), ["predict.input=s3://no-such-bucket/videos/*.mp4"])
    assert guarded(lambda _: pytest.fail("it ran"), lambda: recipe) == 2
    assert "error: s3://no-such-bucket/videos cannot be used" in capsys.readouterr().err
    assert store.looked() == {}     # processes that start later do not look there


@pytest.mark.parametrize("place", ["file", "file/deeper", "link"])
@pytest.mark.parametrize("setting", ["folder", "predict.output", "evaluation.output"])
def test_a_file_in_place_of_a_folder_of_results_is_named_before_anything_is_made(tmp_path, capsys, setting, place):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    changes = [f"folder={tmp_path / 'run'}", f"{setting}={tmp_path / place}"]
    assert guarded(lambda recipe: {}, lambda: chosen_recipe("tiny", changes)) == 2
    there = tmp_path / place.partition("/")[0]
    assert f"{setting}={tmp_path / place}: {there} is not a folder; remove it" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
