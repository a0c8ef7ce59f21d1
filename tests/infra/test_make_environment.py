"""`make` finds a Python that is new enough, says in one line where there is none, and replaces a broken environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Answers as Python does to the calls of the script: is it new enough, make an environment, does pip work, install.
PYTHON = """#!/bin/sh
echo "$0 $*" >> "{log}"
case "$*" in
    *version_info*) exit {too_old} ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip --version") exit {no_pip} ;;
    "-m pip install"*) exit 0 ;;
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
    for name in ("sh", "rm", "mkdir", "cp", "touch", "make"):
        (programs / name).symlink_to(shutil.which(name))
    return tmp_path


def put_python(clone: Path, path: Path, *, too_old: bool = False, no_pip: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PYTHON.format(log=clone / "calls", too_old=int(too_old), no_pip=int(no_pip)))
    path.chmod(0o755)


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS")}
    return subprocess.run(["make", ".venv/.installed", *arguments], cwd=clone, capture_output=True, text=True,
                          env=environment | {"PATH": str(clone / "programs")}, timeout=30, check=False)


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
