"""A submitted job names what its cluster lacks, a line each, before it does anything."""

from __future__ import annotations

import re
import time
from pathlib import Path

import einops
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]

SMALL = ("--recipe", "tiny", "--set", "world.videos_train=2", "--set", "world.videos_val=1")


def problems(log: str) -> list[str]:
    """The lines below the error. Fails where the verb did not end with exit code 2, or does not give the reason last.
    """
    lines = [line for line in log.splitlines() if line]
    assert "ended with 2" in lines, log
    end = lines.index("ended with 2") - 1
    assert lines[end].startswith("ended with exit code 2 (configuration): this cluster cannot run")
    start = next(index for index, line in enumerate(lines) if line.startswith("error: this cluster cannot run"))
    assert "Traceback" not in log
    return [line.strip() for line in lines[start + 1:end]]


def test_a_folder_that_hosts_do_not_share_is_named_with_the_hosts(hosts):
    folder = hosts.private / "run"
    [line] = problems(hosts.submit("python", "-m", "jobs.make_shards", *SMALL, "--set", f"folder={folder}"))
    assert line.startswith(f"h2 (192.0.2.2), h3 (192.0.2.3): folder={folder} is not there; ")
    assert "mount a shared file system" in line
    assert not any((host.folder / "private0" / "run").exists() for host in hosts.hosts)      # nothing was done


def test_every_planted_fault_has_a_line_of_its_own(hosts):
    h1, h2, h3 = hosts.hosts
    videos = hosts.private / "videos"
    (h1.folder / "private0" / "videos").mkdir()
    (h1.folder / "private0" / "videos" / "a.mp4").write_bytes(b"x")
    (h2.folder / "private0" / "videos").mkdir()
    scores = hosts.base / "scores"
    scores.mkdir()
    with h3.without(Path(einops.__file__).parent), h2.read_only(scores):
        lines = problems(hosts.submit(
            "python", "-m", "jobs.predict", *SMALL, "--set", f"folder={hosts.base}/shared", "--set",
            f"predict.input={videos}", "--set", f"predict.output={hosts.private}/out", "--set",
            f"evaluation.output={scores}", "--set", "cluster.gpus_per_actor=1"))
    the_cluster, *others = lines
    assert re.match(r"the cluster: 1 actors with 1 CPUs and 1 GPUs each do not fit, the cluster has room for 0: it has "
                    r"3 x node with 1 CPUs\. Lower cluster\.cpus_per_actor", the_cluster)
    expected = [f"h2 (192.0.2.2): predict.input={videos} is there without a.mp4; ",
                f"h2 (192.0.2.2), h3 (192.0.2.3): predict.output={hosts.private}/out is not there; ",
                f"h2 (192.0.2.2): evaluation.output={scores} cannot be written there (Read-only file system); ",
                "h3 (192.0.2.3): lacks the packages of einops; ",
                f"h3 (192.0.2.3): predict.input={videos} is not there; "]
    assert len(others) == len(expected), lines
    for start in expected:
        assert [line for line in others if line.startswith(start)], (start, lines)
    assert any('--runtime-env-json \'{"pip": ["-c ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/infra/constraints.txt"' in line
               for line in others)


def test_a_gpu_that_no_node_has_and_none_can_get_is_refused_at_once(hosts):
    started = time.monotonic()
    [line] = problems(hosts.submit("python", "-m", "jobs.train_stage_one", *SMALL, "--set", f"folder={hosts.base}/gpu",
                                   "--set", "cluster.gpus_per_worker=1"))
    assert line.startswith("the cluster: 2 workers with 1 CPUs and 1 GPUs each do not fit")
    assert time.monotonic() - started < 60


def test_all_hosts_are_asked_at_once_by_one_task_each_and_nothing_is_done_before(hosts):
    """So the check takes as long as its slowest host, however many there are, and it prints how long that was.

    What a host takes of its processor is bounded in tests/jobs/test_preflight.py.
    """
    log = hosts.submit("python", "-m", "jobs.make_shards", *SMALL, "--set", f"folder={hosts.base}/asked")
    assert "ended with 0" in log, log
    [seconds] = re.findall(r"the cluster is ready: 3 hosts checked in ([\d.]+) s", log)
    print(f"three hosts on this machine were checked in {seconds} s")
    tasks = hosts.tasks_of_newest_job()
    probes = [task for task in tasks if "probe" in task["name"]]
    assert len({probe["node_id"] for probe in probes}) == len(probes) == 3
    first_answer = min(probe["end_time_ms"] for probe in probes)
    assert max(probe["creation_time_ms"] for probe in probes) < first_answer
    assert [task for task in tasks if task["creation_time_ms"] < first_answer and task not in probes] == []
