"""Training over hosts whose names resolve to 127.0.1.1 and that have another interface, vanish, or are drained."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest

from jobs.models import load_weights
from pipeline.at_work import NOTE, SILENT
from tests.cluster.hosts import Hosts, why_not
from tests.cluster.small_runs import SMALL, settings

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]


def steps_of(folder: Path) -> list[int]:
    path = folder / "stage_one" / "progress.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.is_file() else []


def test_three_hosts_shard_and_train_together(hosts):
    run = hosts.base / "run"
    given = (*SMALL, "--set", f"folder={run}", "--set", "cluster.workers=3")
    log = hosts.submit("sh", "-ec", "for verb in make_shards train_stage_one; do python -m jobs.$verb $*; done", "sh",
                       *given)
    assert "ended with 0" in log, log
    assert "on 3 workers" in log
    assert load_weights(run / "stage_one" / "model")
    assert steps_of(run) == list(range(1, 7))


def test_a_host_that_vanishes_costs_steps_and_another_cluster_goes_on(tmp_path_factory):
    """Two of three hosts train; one of them is cut off. The rest goes on, until the whole cluster is gone as well."""
    if reason := why_not():
        pytest.skip(reason)
    shared = Path(tempfile.mkdtemp(prefix="shared-", dir="/var/tmp"))
    run = shared / "run"
    given = (*SMALL, "--set", f"folder={run}", "--set", "cluster.workers=2", "--set", "stage_one.fit.steps=2000",
             "--set", "stage_one.fit.checkpoint_every=5")
    training = ("python", "-m", "jobs.train_stage_one", *given)
    try:
        with closing(Hosts()) as first:
            log = first.submit("python", "-m", "jobs.make_shards", *given)
            assert "ended with 0" in log, log
            first.submit(*training, wait=False)
            first.wait_for(lambda: len(steps_of(run)) > 10)
            first.training()[-1].kill()
            before = len(steps_of(run))
            first.wait_for(lambda: len(steps_of(run)) > before + 10)
            assert is_continued(steps_of(run), before)
        before = len(steps_of(run))
        note = run / "stage_one" / NOTE
        os.utime(note, (time.time() - SILENT, time.time() - SILENT))        # as if five minutes had passed
        with closing(Hosts(2)) as second:
            second.submit(*training, wait=False)
            second.wait_for(lambda: len(steps_of(run)) > before)
        assert is_continued(steps_of(run), before)
    finally:
        shutil.rmtree(shared)


def test_a_host_that_is_drained_while_training_costs_no_step():
    """No checkpoint is due, and the host is taken away as soon as its worker has left it."""
    if reason := why_not():
        pytest.skip(reason)
    with closing(Hosts()) as own:
        run = own.base / "run"
        given = (*SMALL, *settings(f"folder={run}", "cluster.workers=2", "cluster.min_workers=1",
                                   "cluster.max_failures=0", "stage_one.fit.steps=2000",
                                   "stage_one.fit.checkpoint_every=2000"))
        log = own.submit("python", "-m", "jobs.make_shards", *given)
        assert "ended with 0" in log, log
        own.submit("python", "-m", "jobs.train_stage_one", *given, wait=False)
        own.wait_for(lambda: len(steps_of(run)) > 5)
        going = own.training()[-1]
        own.drain(going, 60)
        own.wait_for(lambda: going not in own.training())
        going.kill()
        before = len(steps_of(run))
        own.wait_for(lambda: len(steps_of(run)) > before + 10)
        steps = steps_of(run)
        assert steps == list(range(1, len(steps) + 1))


def is_continued(steps: list[int], line: int) -> bool:
    """Whether the report in this line follows the last checkpoint before it, which is at most 5 steps old."""
    return steps[line - 1] - 4 <= steps[line] <= steps[line - 1] + 1
