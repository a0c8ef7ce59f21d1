"""`make` finds a Python that is new enough, says in one line where there is none, and replaces a broken environment."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Answers as Python does to the calls of the script: is it new enough, make an environment, does pip work, install.
PYTHON = """#!/bin/sh
echo "$0 $*" >> {log}
case "$*" in
    *version_info*) exit {too_old} ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip --version") exit {no_pip} ;;
    "-m pip install"*) exit 0 ;;
    -VV) echo "Python {version}" ;;
    *) exit 0 ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile, its script and a folder of programs that stands first in PATH."""
    shutil.copytree(ROOT / "infra", tmp_path / "infra")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "rm", "mkdir", "cp", "make", "ls", "cat", "env", "cksum"):
        (programs / name).symlink_to(shutil.which(name))
    return tmp_path


def put_python(clone: Path, path: Path, *, too_old: bool = False, no_pip: bool = False,
               version: str = "3.11.7") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PYTHON.format(log=shlex.quote(str(clone / "calls")), too_old=int(too_old), no_pip=int(no_pip),
                                  version=version))
    path.chmod(0o755)


def make(clone: Path, *arguments: str, target: str = ".venv/.installed", **variables: str
         ) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS")}
    return subprocess.run(["make", target, *arguments], cwd=clone, capture_output=True, text=True, timeout=30,
                          env=environment | {"PATH": str(clone / "programs")} | variables, check=False)


def calls(clone: Path) -> str:
    return (clone / "calls").read_text()


@pytest.mark.parametrize("name", ["python3.11", "python3.12", "python3.13", "python3"])
def test_the_first_python_that_is_new_enough_is_used(clone, name):
    put_python(clone, clone / "programs" / "python3", too_old=True)
    put_python(clone, clone / "programs" / name)
    assert make(clone).returncode == 0
    assert f"programs/{name} -m venv .venv" in calls(clone)
    assert ".venv/bin/python -m pip install" in calls(clone)


@pytest.mark.parametrize("arguments", [(), ("PYTHON=python3",), ("PYTHON=/nowhere/python",)])
def test_without_one_a_line_says_what_is_needed_and_nothing_is_left_behind(clone, arguments):
    put_python(clone, clone / "programs" / "python3", too_old=True)
    result = make(clone, *arguments)
    assert result.returncode != 0
    first, *_ = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Python 3.11 or newer is needed" in first
    assert "make PYTHON=/path/to/python3.11" in first
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("broken", [{"too_old": True}, {"no_pip": True}])
def test_an_environment_that_is_half_made_or_too_old_is_made_anew(clone, broken):
    put_python(clone, clone / "programs" / "python3.11")
    put_python(clone, clone / ".venv" / "bin" / "python", **broken)
    (clone / ".venv" / "leftover").touch()
    assert make(clone).returncode == 0
    assert not (clone / ".venv" / "leftover").exists()
    assert (clone / ".venv" / ".installed").is_file()


def test_a_finished_environment_is_kept_until_its_python_is_gone(clone):
    put_python(clone, clone / "programs" / "python3.11")
    assert make(clone).returncode == 0
    before = calls(clone)
    assert make(clone).returncode == 0
    assert "-m venv" not in calls(clone).removeprefix(before)
    (clone / ".venv" / "bin" / "python").unlink()
    assert make(clone).returncode == 0
    assert "-m venv .venv" in calls(clone).removeprefix(before)


@pytest.mark.parametrize("leave", [
    lambda venv: venv.mkdir(), lambda venv: venv.touch(), lambda venv: venv.symlink_to("/nowhere"),
    lambda venv: (venv / "lib").mkdir(parents=True), lambda venv: (venv / "bin" / "python").mkdir(parents=True)])
def test_whatever_an_interrupted_installation_left_is_replaced(clone, leave):
    put_python(clone, clone / "programs" / "python3.11")
    leave(clone / ".venv")
    assert make(clone).returncode == 0
    assert (clone / ".venv" / "bin" / "python").is_file()


def test_a_clone_that_was_moved_with_its_environment_is_installed_at_its_new_place(clone):
    put_python(clone, clone / "programs" / "python3.11")
    assert make(clone).returncode == 0
    stamp = Path(".venv") / ".installed"
    assert (clone / stamp).read_text().splitlines()[0] == str(clone.resolve())
    moved = clone.rename(clone.parent / "moved here")
    assert make(moved).returncode == 0
    assert (moved / stamp).read_text().splitlines()[0] == str(moved.resolve())


def test_a_change_of_the_packages_is_noticed_whatever_the_clock_says(clone):
    """The clock was wrong when the environment was made, and is right when the clone is brought up to date."""
    put_python(clone, clone / "programs" / "python3.11")
    assert make(clone).returncode == 0
    os.utime(clone / ".venv" / ".installed", (2e9, 2e9))
    (clone / "pyproject.toml").write_text("# another package")
    before = calls(clone)
    assert make(clone).returncode == 0
    assert "-m pip install" in calls(clone).removeprefix(before)
    before = calls(clone)
    os.utime(clone / "pyproject.toml", (3e9, 3e9))
    assert make(clone).returncode == 0
    assert "-m pip install" not in calls(clone).removeprefix(before)


def test_an_environment_whose_python_became_another_one_is_made_anew(clone):
    """The link to python3 stays, and the system now has a newer one: its packages are not seen any more."""
    put_python(clone, clone / "programs" / "python3.11")
    assert make(clone).returncode == 0
    put_python(clone, clone / ".venv" / "bin" / "python", no_pip=True, version="3.13.0")
    before = calls(clone)
    assert make(clone).returncode == 0
    assert "-m venv .venv" in calls(clone).removeprefix(before)


def test_another_python_that_is_named_replaces_the_environment(clone):
    put_python(clone, clone / "programs" / "python3.11")
    put_python(clone, clone / "programs" / "python3.13", version="3.13.0")
    assert make(clone).returncode == 0
    before = calls(clone)
    assert make(clone, "PYTHON=python3.13").returncode == 0
    assert "programs/python3.13 -m venv .venv" in calls(clone).removeprefix(before)
    before = calls(clone)
    assert make(clone, "PYTHON=python3.13").returncode == 0
    assert make(clone).returncode == 0
    assert "-m pip install" not in calls(clone).removeprefix(before)


@pytest.mark.parametrize("name", ["a space", "brackets [x] (y)", "a & b", "it's"])
def test_the_name_of_the_clone_does_not_matter(clone, name):
    named = clone.rename(clone.parent / name)
    put_python(named, named / "programs" / "python3.11")
    result = make(named)
    assert result.returncode == 0, result.stderr
    before = calls(named)
    assert make(named).returncode == 0
    assert "-m pip install" not in calls(named).removeprefix(before)


@pytest.mark.parametrize("variable", ["PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"])
def test_variables_of_other_environments_do_not_reach_the_installation(clone, variable):
    path = clone / "programs" / "python3.11"
    put_python(clone, path)
    path.write_text(path.read_text().replace("case", f'[ -z "${variable}" ] || exit 1\ncase', 1))
    result = make(clone, **{variable: "/elsewhere"})
    assert result.returncode == 0, result.stderr


def test_a_pip_that_installs_for_the_user_is_told_not_to(clone):
    put_python(clone, clone / "programs" / "python3.11")
    path = clone / "programs" / "python3.11"
    path.write_text(path.read_text().replace("case", '[ "$PIP_USER" = 0 ] || exit 1\ncase', 1))
    assert make(clone, PIP_USER="1").returncode == 0


def test_a_folder_of_something_else_is_never_removed(clone):
    put_python(clone, clone / "programs" / "python3.11")
    (clone / "data" / "bin").mkdir(parents=True)
    (clone / "data" / "precious").touch()
    result = make(clone, "VENV=data", target="data/.installed")
    assert result.returncode != 0
    assert "data is no virtual environment and is not empty; name another folder: make VENV=" in result.stderr
    assert (clone / "data" / "precious").exists()


def test_a_python_in_a_folder_with_a_space_can_be_named(clone):
    put_python(clone, clone / "my tools" / "python3")
    assert make(clone, "PYTHON=my tools/python3").returncode == 0


def test_a_place_that_cannot_be_written_is_named_with_the_way_out(clone):
    put_python(clone, clone / "programs" / "python3.11")
    result = make(clone, "VENV=/proc/venv", target="/proc/venv/.installed")
    assert result.returncode != 0
    assert "error: /proc/venv cannot be made here; name a folder that can be: make VENV=" in result.stderr


@pytest.mark.parametrize("name", ["{0}/two words", "", "one two", "a;b", "c:d", "%"])
@pytest.mark.parametrize("target", [".venv/.installed", "clean"])
def test_a_name_that_make_takes_apart_is_refused_before_anything_is_made_or_removed(clone, name, target):
    put_python(clone, clone / "programs" / "python3.11")
    (clone / "two").touch()
    result = make(clone, f"VENV={name.format(clone)}", target=target)
    assert result.returncode == 2
    assert result.stderr.rstrip().endswith("must name one folder, without blanks and ; : %: make "
                                           "VENV=/path/to/venv.  Stop.")
    assert not (clone / "calls").exists()
    assert (clone / "two").exists()


@pytest.mark.parametrize("name", ["a&b", "(c)", "l'été"])
def test_a_name_with_a_shells_words_is_one_folder(clone, name):
    put_python(clone, clone / "programs" / "python3.11")
    assert f"{name}/bin/ruff: not found" in make(clone, f"VENV={name}", target="lint").stderr
    assert (clone / name / ".installed").is_file()
    assert make(clone, f"VENV={name}", target=f"{name}/.installed").returncode == 0
    assert calls(clone).count("-m venv") == 1


def test_a_home_folder_may_be_written_as_a_tilde(clone):
    put_python(clone, clone / "programs" / "python3.11")
    assert make(clone, "VENV=~/venv", target=f"{clone}/venv/.installed", HOME=str(clone)).returncode == 0
    assert (clone / "venv" / ".installed").is_file()
    assert not (clone / "~").exists()


def test_clean_removes_no_folder_that_is_no_environment(clone):
    (clone / "work" / "thesis").mkdir(parents=True)
    result = make(clone, "VENV=work", target="clean")
    assert result.returncode == 2
    assert "error: work is no virtual environment; remove it yourself" in result.stderr
    assert (clone / "work" / "thesis").exists()
    (clone / "work" / "pyvenv.cfg").touch()
    assert make(clone, "VENV=work", target="clean").returncode == 0
    assert not (clone / "work").exists()


def test_make_started_in_another_folder_says_so(clone, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    result = make(other, "-f", str(clone / "Makefile"), PATH=str(clone / "programs"))
    assert result.stderr.rstrip().endswith("start make in the folder of the clone, or name that folder: "
                                           "make -C FOLDER.  Stop.")
    assert not list(other.iterdir())
