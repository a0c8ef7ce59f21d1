"""RAY_ADDRESS in every form: a cluster that answers is joined, all else is an error with the variable and the cure."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
import ray
from ray._private.utils import check_version_info

from jobs import joined_cluster
from jobs.cluster import SUBMITTED_JOB, named_address
from jobs.joined_cluster import SAME_VERSIONS, answering_address, clusters_here, join, place_of_job, why_not


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """Ray's note of its newest cluster, on a machine where none runs."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(joined_cluster, "find_gcs_addresses", set)
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


@pytest.mark.parametrize(("value", "address"), [("", ""), (" ", ""), ("local", ""), ("auto", "auto"),
                                                (" 10.0.0.1:6379\n", "10.0.0.1:6379")])
def test_an_empty_value_and_local_mean_a_cluster_of_the_verbs_own(monkeypatch, value, address):
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert named_address() == address


@pytest.mark.parametrize(("address", "reason"), [
    ("127.0.0.1:1", "Connection refused"), ("[::1]:1", "Connection refused"),
    ("nowhere.invalid:6379", "no Ray cluster answers"), ("somewhere", "'somewhere' is not a host:port"),
    ("127.0.0.1:-5", "is not a host:port"), (":", "is not a host:port"), ("AUTO", "is not a host:port"),
    ("http://127.0.0.1:8265", "an address for `ray job submit`"), ("ray://127.0.0.1:10001", "`ray job submit`")])
def test_an_address_without_a_cluster_is_named_with_the_cure(address, reason):
    with pytest.raises(ConnectionError, match=r"(?i:unset RAY_ADDRESS) to start a small cluster") as raised:
        answering_address(address)
    assert f"RAY_ADDRESS={address}" in str(raised.value)
    assert reason in str(raised.value)


def test_auto_without_a_cluster_says_so(noted):
    with pytest.raises(ConnectionError, match=r"RAY_ADDRESS=auto \(none runs on this machine\)\. Unset RAY_ADDRESS"):
        answering_address("auto")


def test_the_note_of_a_cluster_that_has_died_is_not_believed(noted):
    noted.write_text("127.0.0.1:1")
    with pytest.raises(ConnectionError, match=r"RAY_ADDRESS=auto \(127\.0\.0\.1:1: .*Connection refused\)\. Unset"):
        answering_address("auto")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", None])
def test_a_note_that_cannot_be_read_is_no_note(noted, content):
    noted.mkdir() if content is None else noted.write_bytes(content)
    assert clusters_here() == []


def test_a_cluster_that_runs_is_found_beside_a_note_of_another(noted, monkeypatch):
    noted.write_text("127.0.0.1:1")
    monkeypatch.setattr(joined_cluster, "find_gcs_addresses", lambda: {"127.0.0.1:2"})
    monkeypatch.setattr(joined_cluster, "why_not", lambda place, _: "" if place == "127.0.0.1:2" else "gone")
    assert answering_address("auto") == "127.0.0.1:2"


def test_a_cluster_of_other_versions_is_named_with_all_of_them(monkeypatch):
    """Ray's message has a line for each, of which the first tells nothing."""
    monkeypatch.setattr(ray, "init", lambda **_: check_version_info(
        {"ray_version": "2.0.0", "python_version": "3.11.0"}, "this machine"))
    with pytest.raises(ConnectionError) as raised:
        join("auto", environment={})
    said = str(raised.value)
    assert "The cluster was started with: Ray: 2.0.0 Python: 3.11.0 This process" in said
    assert f"Ray: {ray.__version__} Python: {platform.python_version()}. {SAME_VERSIONS}" in said


@pytest.mark.parametrize("address", ["", "auto", "127.0.0.1:1", "somewhere"])
def test_left_over_variables_of_a_job_are_named(noted, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConnectionError) as raised:
        place_of_job()
    assert str(raised.value).startswith(f"{SUBMITTED_JOB} is set, as in a job of `ray job submit`, but no Ray cluster "
                                        "answers at ")
    assert str(raised.value).endswith(f"). Outside of a job, unset {SUBMITTED_JOB} and RAY_ADDRESS to start a small "
                                      "cluster on this machine")


def test_inside_a_job_ray_names_the_cluster(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        assert place_of_job() == "auto"


def test_a_server_that_never_answers_is_left_in_time():
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        assert "does not answer" in why_not(f"127.0.0.1:{server.getsockname()[1]}", 2.0)
        assert time.monotonic() - started < 10


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("program", ["raylet", "gcs_server"])
def test_a_cluster_of_which_a_process_hangs_is_left_within_a_minute(tmp_path_factory, program):
    port = free_port()
    head = start_head(port, tmp_path_factory)
    try:
        assert why_not(f"127.0.0.1:{port}", 60.0) == ""
        [process] = [child for child in psutil.Process(head.pid).children(recursive=True) if child.name() == program]
        process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(ConnectionError, match=rf"RAY_ADDRESS=127\.0\.0\.1:{port} \(.*answer.*\)\. Unset"):
            answering_address(f"127.0.0.1:{port}")
        assert time.monotonic() - started < 55
    finally:
        for child in [*psutil.Process(head.pid).children(recursive=True), head]:
            child.kill()
        head.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_head(port: int, tmp_path_factory) -> subprocess.Popen:
    """A cluster of one node, as the child processes of one process."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    home = tmp_path_factory.mktemp("home")
    head = subprocess.Popen([sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port",
                             str(port), "--num-cpus", "1", "--include-dashboard", "false", "--object-store-memory",
                             "100000000"], env=environment | {"HOME": str(home)}, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return head
        except OSError:
            time.sleep(0.5)
    head.kill()
    raise TimeoutError("the cluster did not start")
