"""A short storm: seeded trials of the kinds of faults that need neither Ray nor a small disk, on all verbs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

KINDS = ("kill", "stop", "own-files", "damaged-shards", "foreign-files", "full-disk", "tracker")

BROKEN = """
import sys
from tests.storm import __main__ as storm
from tests.storm.small_run import SmallRun
from tests.storm.trials import Damage, Kind

def lose(run, verb, numbers):
    raise Damage("everything")

SmallRun.make = lambda self: None
storm.KINDS["loss"] = Kind(name="loss", verbs=("predict",), meet=lose)
sys.exit(storm.main(kind=("loss",), seed=7, trials=2))
"""


def storm(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_a_short_storm_is_survived(tmp_path):
    ended = storm("-m", "tests.storm", "--short", "--folder", str(tmp_path / "storm"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [line.split(" | ") for line in ended.stdout.splitlines() if line.startswith("| ")]
    assert {row[0].removeprefix("| ") for row in rows[1:-1]} == set(KINDS)
    assert all("1 / 1" in row for row in rows[1:-1])


def test_a_storm_with_a_loss_fails_and_names_what_repeats_it():
    ended = storm("-c", BROKEN)
    assert ended.returncode == 1
    assert "| loss | predict | 0 / 2 | 0 |" in ended.stdout
    assert "failed: python -m tests.storm --kind loss --verb predict --seed 8 --trials 1\n  everything" in ended.stdout


def test_an_unknown_kind_or_verb_is_named():
    assert "no kind hail; there are kill," in storm("-m", "tests.storm", "--kind", "hail").stderr
    assert "has a verb dance" in storm("-m", "tests.storm", "--verb", "dance").stderr
