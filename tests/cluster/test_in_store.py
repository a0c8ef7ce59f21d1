"""Three hosts that share no folder, only an object store."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.object_store import BUCKET
from tests.cluster.small_runs import SMALL, TOY, settings
from tests.job_logs import foreign_lines, summaries
from tests.object_store import skip_without_a_server

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def servers(hosts):
    """The environment in which all hosts find a store and a tracker on the first."""
    skip_without_a_server()
    head = hosts.hosts[0]
    (head.folder / "servers").mkdir()
    command = head.command(sys.executable, "-m", "tests.cluster.servers", str(head.folder / "servers"), head.address,
                           environment=hosts.environment)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(process.stdout.readline())
        process.kill()


def test_hosts_that_share_only_a_store_run_the_verbs_there(hosts, servers):
    """Each host has copies of what its own processes read or wrote.

    The heads of the sweep are trained on three hosts, and one of them scores all. The runs of the table go on where
    another host left them.
    """
    run = f"s3://{BUCKET}/run"
    three = settings("cluster.actors=3")
    given = (*SMALL, *settings(f"folder={run}", "shards.min_shards=3", "cluster.workers=3"), *three)
    flags = {"demo": given, "predict": (*given, *settings(f"predict.input={run}/world/images/val_00000")),
             "sweep": (*given, "--over", "stage_two.head.layers=1,2,3"),
             "reproduce": ("--table", "video_kmax.2", "--seeds", "1", "--folder", f"s3://{BUCKET}/tables", *TOY,
                           *three)}
    said = {}
    for verb, words in flags.items():
        log = hosts.submit("python", "-m", f"jobs.{verb}", *words, runtime={"env_vars": servers})
        assert "ended with 0" in log, log
        assert foreign_lines(log) == []
        said |= summaries(log)
    assert said["jobs.demo"]["offline"]["vpq"] is not None
    assert len(said["jobs.predict"]["videos"]) == 1
    assert (said["jobs.sweep"]["new"], said["jobs.sweep"]["failed"]) == (3, 0)
    assert (said["jobs.reproduce"]["new"], said["jobs.reproduce"]["failed"]) == (4, 0)
    working = [list((host.folder / "tmp").glob(f"maxtron-stores-*/s3/{BUCKET}/run/world")) for host in hosts.hosts]
    assert sum(map(len, working)) > 1
