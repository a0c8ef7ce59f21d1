"""Every verb on a finished run on a read-only share: it works, or names the file and how to write elsewhere."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.config import to_json
from tests.runs import EVERYTHING, FinishedRun

can_mount = os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True,
                                                 check=False).returncode == 0
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_mount, reason="needs root and mount namespaces")]


@pytest.fixture
def share(finished_run: FinishedRun, tmp_path: Path) -> Path:
    """A copy of the folder of runs."""
    finished_run.copy(tmp_path / "share" / "run")
    (tmp_path / "share" / "run" / "tracking.json").unlink(missing_ok=True)
    return tmp_path / "share"


def start(share: Path, verb: str, *settings: str, flags: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """A verb on the run of a share that nobody can write to."""
    options = ["cluster.in_process=true", f"folder={share / 'run'}",
               f"inference.panoptic={json.dumps(to_json(EVERYTHING))}", *settings]
    command = shlex.join([sys.executable, "-m", f"jobs.{verb}", "--recipe", "tiny",
                          *(word for option in options for word in ("--set", option)), *flags])
    folder = shlex.quote(str(share))
    read_only = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    return subprocess.run(["unshare", "--mount", "bash", "-c", f"{read_only} && ! touch {folder}/x 2>/dev/null && "
                           f"{command}"], capture_output=True, text=True, timeout=300, check=False,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_predicting_needs_no_right_to_write_where_the_run_lies(share, tmp_path):
    video = next((share / "run" / "world" / "images").iterdir())
    result = start(share, "predict", f"predict.input={video}", f"predict.output={tmp_path / 'mine'}")
    assert result.returncode == 0, result.stderr
    assert f"{share / 'run'} is read-only, so this verb is not recorded in MLflow" in result.stdout
    assert "Traceback" not in result.stderr
    assert list((tmp_path / "mine").rglob("tracks.json"))


def test_scores_go_to_the_folder_that_is_named(share, tmp_path):
    result = start(share, "evaluate", "evaluation.mode=offline", f"evaluation.output={tmp_path / 'mine'}")
    assert result.returncode == 0, result.stderr
    assert "is read-only, so this verb is not recorded in MLflow" in result.stdout
    assert (tmp_path / "mine" / "offline" / "scores.json").is_file()


@pytest.mark.long
def test_what_is_finished_stays_so(share):
    """The tracker was away when the run was made: what waits for it is left alone."""
    wait = share / "run" / "tracking" / "00000000000000000001-00000000"
    wait.mkdir(parents=True)
    (wait / "run.json").write_text(json.dumps({"verb": "evaluate", "run": "tiny", "project": "p", "uri": "", "began": 1,
                                               "parent_key": "k"}))
    (wait / "00000000000000000002_tags.json").write_text('{"a": "b"}')
    for verb in ("make_shards", "train_stage_one", "cache_queries", "train_stage_two"):
        result = start(share, verb)
        assert result.returncode == 0, (verb, result.stderr)
        assert "Traceback" not in result.stderr


@pytest.mark.machines
def test_what_only_reads_works(share):
    for verb in ("verify_shards", "verify_cache", "inspect_cache", "profile", "sync_tracking"):
        result = start(share, verb)
        assert result.returncode == 0, (verb, result.stderr)
        assert f'"verb": "jobs.{verb}"' in result.stdout.splitlines()[-1]
        assert "Traceback" not in result.stderr


@pytest.mark.long
def test_a_head_is_swept_into_another_folder(share, tmp_path):
    flags = ["--over", "stage_two.head.layers=1"]
    refused = start(share, "sweep", flags=flags)
    assert refused.returncode == 1
    assert refused.stderr.strip().endswith(f"--set folder=/another/folder --set stage_one_from={share / 'run'}")
    result = start(share, "sweep", f"folder={tmp_path / 'mine'}", f"stage_one_from={share / 'run'}", flags=flags)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mine" / "sweeps" / "sweep" / "ranking.txt").is_file()


def test_without_such_a_folder_the_file_that_cannot_be_written_is_named(share):
    result = start(share, "evaluate")
    assert result.returncode == 1
    assert "error: " in result.stderr
    assert "Read-only file system" in result.stderr
    assert str(share / "run" / "scores") in result.stderr
    assert result.stderr.strip().endswith("To write elsewhere: --set evaluation.output=/another/folder")
