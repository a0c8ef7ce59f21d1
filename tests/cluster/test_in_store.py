"""Three hosts that share no folder, only an object store."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.object_store import BUCKET
from tests.cluster.test_training import SMALL
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


def test_hosts_that_share_only_a_store_shard_train_cache_and_score_there(hosts, servers):
    """`jobs.demo` is five verbs in one process. The driver writes the data set, and other hosts read it from the store.
    """
    log = hosts.submit("python", "-m", "jobs.demo", *SMALL, "--set", f"folder=s3://{BUCKET}/run", "--set",
                       "shards.min_shards=3", "--set", "cluster.workers=3", "--set", "cluster.actors=3",
                       runtime={"env_vars": servers})
    assert "ended with 0" in log, log
    [said] = [json.loads(line) for line in log.splitlines() if line.startswith('{"verb"')]
    assert said["offline"]["vpq"] is not None
    working = [list((host.folder / "tmp").glob(f"maxtron-stores-*/s3/{BUCKET}/run/world")) for host in hosts.hosts]
    assert sum(map(len, working)) > 1
