"""Variables of the environment that other programs left, or that this user set for other reasons."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRY_RUN = [sys.executable, "-m", "jobs.make_shards", "--recipe", "tiny", "--dry-run"]

CAN_MOUNT = os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True,
                                                 check=False).returncode == 0

# In the process of a verb, as Python starts it: an import that warns, and what its workers get.
IMPORT_THAT_WARNS = """
import os, sys
sys.argv[0] = "-m"
import jobs
import warnings
warnings.warn_explicit("old", DeprecationWarning, "a.py", 1, module="somebody")
warnings.warn("careful", stacklevel=1)
print(sys.warnoptions, os.environ.get("PYTHONWARNINGS"))
"""


def start(*command: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
                          env=inherited | {"OMP_NUM_THREADS": "1"} | environment)


@pytest.mark.parametrize(("variables", "kept"), [
    ("error", ""), ("error,ignore::FutureWarning", "ignore::FutureWarning"),
    ("ignore::FutureWarning, err::DeprecationWarning:x", "ignore::FutureWarning")])
def test_a_warning_of_an_installed_package_ends_no_verb(variables, kept):
    result = start(sys.executable, "-c", IMPORT_THAT_WARNS, PYTHONWARNINGS=variables)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"{[kept] if kept else []} {kept}".strip()
    assert "careful" in result.stderr


def test_the_switch_of_python_does_no_more_than_the_variable():
    assert start(sys.executable, "-W", "error", "-c", IMPORT_THAT_WARNS).returncode == 0


def test_another_program_that_imports_the_project_keeps_its_filters():
    result = start(sys.executable, "-W", "error", "-c", "import jobs, warnings; warnings.warn('careful', stacklevel=1)")
    assert result.returncode == 1
    assert "UserWarning: careful" in result.stderr


@pytest.mark.skipif(not CAN_MOUNT, reason="needs root and mount namespaces")
def test_without_any_temporary_folder_one_line_names_the_variable():
    folders = ("/tmp", "/var/tmp", "/usr/tmp")
    mounts = " && ".join(f"mount -t tmpfs -o ro none {folder}" for folder in folders if Path(folder).is_dir())
    command = f"{mounts} && cd /proc && exec {shlex.join(DRY_RUN)}"
    result = start("unshare", "--mount", "bash", "-c", command, TMPDIR="/nowhere", PYTHONPATH=str(ROOT))
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert line.startswith("error: No usable temporary directory found in ['/nowhere', '/tmp', ")
    assert line.endswith("Set TMPDIR to a folder that this user may write, with room")


def test_a_path_beyond_ascii_under_an_ascii_locale_names_the_variable():
    result = start(*DRY_RUN, "--set", "folder=/tmp/josé", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert result.returncode == 2
    assert "has a name in another encoding than ASCII; rename it" in result.stderr
    assert result.stderr.strip().endswith("or set PYTHONUTF8=1")
