"""Where Ray keeps its sockets, and paths that its unquoted commands cannot hold. `tests/machines` starts it there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jobs import own_cluster
from jobs.own_cluster import failure_named, ray_folder, refuse_special_paths, start_own_cluster

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def system_folder(monkeypatch):
    """Sets the temporary folder of the system."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)

    def choose(folder: str) -> None:
        monkeypatch.setattr(tempfile, "tempdir", folder)
    return choose


def test_a_store_that_is_too_small_for_ray_is_refused_with_the_setting():
    with pytest.raises(ValueError, match=r"object_store_mb=10 is less.*set cluster\.object_store_mb=75 or more"):
        start_own_cluster(cpus=1, object_store_mb=10, environment={})


def test_ray_works_in_the_temporary_folder_of_the_system(system_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(own_cluster, "LONGEST_RAY_FOLDER", 200)
    system_folder(str(tmp_path))
    assert ray_folder() == tmp_path / "ray"


@pytest.mark.parametrize("occupy", [lambda path: path.touch(), lambda path: path.symlink_to("/nowhere"),
                                    lambda path: path.symlink_to("/proc/1")])
def test_a_folder_of_that_name_that_is_no_use_is_left_alone(system_folder, tmp_path, monkeypatch, occupy):
    monkeypatch.setattr(own_cluster, "LONGEST_RAY_FOLDER", 200)
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != str(tmp_path / "ray"))
    system_folder(str(tmp_path))
    occupy(tmp_path / "ray")
    assert ray_folder() == tmp_path / f"ray-{os.geteuid()}"


@pytest.mark.parametrize("folder", ["/tmp/" + "x" * 40, "/tmp/two words", "/nowhere"])
def test_a_long_special_or_missing_temporary_folder_is_replaced_by_a_short_one(system_folder, folder):
    system_folder(folder)
    assert ray_folder().parent == Path("/tmp")


def test_a_relative_folder_is_made_absolute_since_workers_run_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(own_cluster, "LONGEST_RAY_FOLDER", 200)
    monkeypatch.setenv("RAY_TMPDIR", "here")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert ray_folder() == tmp_path / "here" / "ray"


def test_without_a_short_folder_the_variable_and_the_cure_are_named(system_folder, monkeypatch):
    system_folder("/tmp/" + "x" * 40)
    monkeypatch.setattr(own_cluster, "SHORT_TEMPORARY_FOLDERS", ("/nowhere",))
    with pytest.raises(ValueError, match=r"at most 36 bytes.*none of /nowhere can be written\. Set TMPDIR"):
        ray_folder()


@pytest.mark.parametrize("path", ["/home/me/my project/.venv/bin/python", "/data/[new]/python", "/a&b/python",
                                  "/it's/python", "/c$d/python"])
def test_paths_that_a_shell_would_take_apart_are_refused(path):
    with pytest.raises(ValueError, match=r"the Python is /.*Move the clone"):
        refuse_special_paths({"the Python": path})


@pytest.mark.parametrize("path", ["/home/me/project-2_x.y/.venv/bin/python3.11", "/home/josé/a+b,c@d=e%f/python"])
def test_ordinary_paths_pass(path):
    refuse_special_paths({"the Python": path})


def test_whatever_ray_raises_while_it_starts_is_told_with_its_logs_and_the_variables_that_are_set(monkeypatch):
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "nowhere.hook")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with pytest.raises(ConnectionError) as raised, failure_named(Path("/tmp/ray")):
        raise ModuleNotFoundError("No module named 'nowhere'\nand more")
    assert str(raised.value) == (
        "Ray does not start on this machine (No module named 'nowhere'); its logs are in /tmp/ray/session_latest/logs. "
        "Unset what you do not need of RAY_RUNTIME_ENV_HOOK. If this machine is busy, wait and run the command again. "
        "Look at the limits of this user (ulimit -a), or run without Ray by --set cluster.in_process=true")


@pytest.mark.ray
def test_no_process_starts_that_has_nothing_to_do():
    script = """
import time
from pathlib import Path
import ray
from jobs.cluster import ClusterConfig, connect, leave_own_cluster
connect(ClusterConfig(local_cpus=2, object_store_mb=80))
ray.get(ray.remote(lambda: 1).remote())
time.sleep(3)       # in which others would start
logs = Path(ray._private.worker._global_node.get_logs_dir_path())
print("OF ANY JOB", len(list(logs.glob("worker-*-ffffffff-*.out"))))
leave_own_cluster()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "OF ANY JOB 0\n" in done.stdout
