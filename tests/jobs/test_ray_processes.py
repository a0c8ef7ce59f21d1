"""A verb does not wait endlessly for a cluster of its own that is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.processes import is_alive

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]

# An actor that has begun to start when the raylet dies: Ray waits for it without end.
WAITING = """
import psutil
import ray
from jobs import ray_processes
from jobs.cluster import ClusterConfig, connect

ray_processes.PATIENCE = 3.0
connect(ClusterConfig(local_cpus=1, object_store_mb=100))

class Slow:
    def answer(self):
        return 1

answer = ray.remote(Slow).options(num_cpus=1).remote().answer.remote()
processes = psutil.Process().children(recursive=True)
print(*[process.pid for process in processes], flush=True)
(raylet,) = [process for process in processes if process.name() == "raylet"]
raylet.kill()
ray.wait([answer])
"""


@pytest.mark.long
def test_the_death_of_the_raylet_ends_a_verb_that_waits_for_an_actor():
    done = subprocess.run([sys.executable, "-c", WAITING], cwd=ROOT, capture_output=True, text=True, check=False,
                          timeout=200)
    assert done.returncode == 1
    assert "error: Ray's process raylet died on this machine" in done.stderr
    assert "run the same command again" in done.stderr
    started = map(int, done.stdout.splitlines()[0].split())
    ends = time.monotonic() + 20
    while (left := [pid for pid in started if is_alive(pid)]) and time.monotonic() < ends:
        time.sleep(0.2)
        started = left
    assert left == []
