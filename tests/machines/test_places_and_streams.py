"""A verb works wherever it is started and wherever its output goes, or one line says what is in the way."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

MAKE_SHARDS = [sys.executable, "-m", "jobs.make_shards", "--recipe", "tiny", "--set", "cluster.in_process=true"]


def start(command: str, *, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """A line of the shell in a folder, without the variables that the tests themselves run with."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120,
                          env=inherited | {"OMP_NUM_THREADS": "1"} | environment, check=False)


def make_shards(folder: Path, *options: str) -> str:
    return shlex.join([*MAKE_SHARDS, "--set", f"folder={folder}", *options])


@pytest.mark.parametrize("name", ["model.py", "pipeline.py", "model/__init__.py"])
def test_a_foreign_module_in_the_folder_is_named_in_one_line(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    result = start(make_shards(tmp_path / "run"), folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"error: {tmp_path / name} is in the way: Python finds it instead of this project's "
        f"`{name.partition('/')[0].partition('.')[0]}`. Start the verb in another folder, rename it, or set "
        "PYTHONSAFEPATH=1"]


@pytest.mark.parametrize("name", ["torch.py", "random.py", "types.py", "typing.py", "yaml/__init__.py", "json.so",
                                  "numpy.pyc"])
def test_a_module_with_the_name_of_a_package_that_is_needed_is_named_too(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    result = start(make_shards(tmp_path / "run"), folder=tmp_path)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / name.partition('/')[0]} is in the way: ")


@pytest.mark.parametrize("name", ["model.py", "random.py", "numpy/__init__.py"])
def test_a_module_in_pythonpath_is_named_with_the_variable(tmp_path, name):
    (tmp_path / "other" / name).parent.mkdir(parents=True)
    (tmp_path / "other" / name).touch()
    search = f"{tmp_path / 'other'}:{Path(__file__).parents[2]}"
    result = start(make_shards(tmp_path / "run"), folder=tmp_path, PYTHONPATH=search)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith(". Take its folder out of PYTHONPATH, or rename it")
    assert f"error: {tmp_path / 'other' / name.partition('/')[0]} is in the way: " in result.stderr


def test_names_that_hide_nothing_are_no_obstacle(tmp_path):
    for name in ("ray/settings.txt", "test.py", "tests/__init__.py", "infra/__init__.py", "train.py", "torch.txt",
                 "random.test.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    result = start(make_shards(tmp_path / "run", "--dry-run"), folder=tmp_path)
    assert result.returncode == 0, result.stderr


def test_a_foreign_module_is_no_obstacle_where_python_does_not_search_the_folder(tmp_path):
    (tmp_path / "model.py").touch()
    assert start(make_shards(tmp_path / "run", "--dry-run"), folder=tmp_path, PYTHONSAFEPATH="1").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", "| head -n 0"])
def test_a_closed_output_does_not_end_a_verb(tmp_path, redirection):
    result = start(f"set -o pipefail; {make_shards(tmp_path / 'run')} {redirection}", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "shards" / "val" / "manifest.json").is_file()


def test_a_character_that_the_terminal_lacks_is_escaped(tmp_path):
    result = start(make_shards(tmp_path / "josé", "--dry-run"), folder=tmp_path, PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["folder"] == str(tmp_path / "josé")


@pytest.mark.parametrize(("options", "redirection", "code"), [
    ("--dry-run", "> /dev/full", 0), ("--set nothing=1", "2> /dev/full", 2),
    ("--set nothing=1", "2>&1 | head -n 0", 2)])
def test_an_output_that_takes_nothing_changes_no_exit_code(tmp_path, options, redirection, code):
    command = make_shards(tmp_path / "run", *options.split())
    assert start(f"set -o pipefail; {command} {redirection}", folder=tmp_path).returncode == code


def test_a_folder_that_is_gone_is_named_in_one_line(tmp_path):
    (tmp_path / "gone").mkdir()
    repository = Path(__file__).parents[2]
    result = start(f"rmdir ../gone; {make_shards(tmp_path / 'run')}", folder=tmp_path / "gone",
                   PYTHONPATH=str(repository))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == ("error: the folder in which you started this command does not exist any "
                                              "more; change to another one (cd)")


def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_made(tmp_path):
    command = make_shards(tmp_path / "run") + " --set folder=" + shlex.quote(str(tmp_path)) + "/$'caf\\xe9'"
    result = start(command, folder=tmp_path)
    assert result.returncode == 2
    assert "has a name in another encoding than UTF-8; rename it" in result.stderr
    assert list(tmp_path.iterdir()) == []
