"""A user whom no file lists, as in a container that is started with `--user`."""

from __future__ import annotations

import os
import subprocess
import sys

NOBODY = """
import os, pwd
os.environ.pop("HOME", None)

def unknown(_):
    raise KeyError("uid not found")

pwd.getpwuid = unknown
from jobs.training.tracking import mlflow_module
print(mlflow_module().__name__, os.environ.get("HOME"))
"""


def test_the_tracker_works_without_a_home_folder():
    result = subprocess.run([sys.executable, "-c", NOBODY], capture_output=True, text=True, timeout=120, check=False,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert result.stdout.split() == ["mlflow", "None"], result.stderr
