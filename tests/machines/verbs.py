"""Verbs as a user starts them: a line of the shell, in a folder, with variables of the environment."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.files import sha256_of

ROOT = Path(__file__).resolve().parents[2]
CAN_MOUNT = os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True,
                                                 check=False).returncode == 0
HERE = "cluster.in_process=true"


def verb(name: str, *settings: str, flags: str = "") -> str:
    """The line that runs a verb of the recipe `tiny`. flags: of Python."""
    words = [word for setting in settings for word in ("--set", setting)]
    return shlex.join([sys.executable, *flags.split(), "-m", f"jobs.{name}", "--recipe", "tiny", *words])


def start(line: str, *, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    """Run a line of the shell to its end, without the variables that the tests themselves run with."""
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment(**variables), capture_output=True,
                          text=True, errors="replace", timeout=300, check=False)


def environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    return inherited | {"OMP_NUM_THREADS": "1"} | variables


def content(folder: Path) -> dict[str, str]:
    """The digest of every shard of a run."""
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.glob("shards/*/*.tar")}


def copy_of_the_code(folder: Path) -> Path:
    """A clone in a folder: the packages of the project, without tests and history."""
    for package in ("jobs", "model", "pipeline", "maxtron_on_ray"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def refuse_failure(result: subprocess.CompletedProcess) -> None:
    """Raise AssertionError unless a verb went through, without a traceback of anybody."""
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
