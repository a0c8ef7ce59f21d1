"""The check of a joined cluster, without one: what a host compares, and the lines that name what it lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from jobs import node_probe, preflight
from jobs.cluster import ClusterConfig
from jobs.node_probe import CANNOT_READ, CANNOT_WRITE
from jobs.preflight import DEMANDS, FOR_GPUS, READ, SAME_CODE, SHARE, TOKEN, WRITE, _compared, _lines, _problems
from jobs.surroundings import INSTALL, RUNTIME_ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]


def compared(outputs=(), **paths: Path | str):
    return _compared({name.replace("__", "."): (str(path),) for name, path in paths.items()}, outputs)


def test_a_shared_folder_is_recognised_and_left_as_it_was(tmp_path):
    run = tmp_path / "runs" / "new"
    with compared(("folder",), folder=run) as [folder]:
        assert node_probe.folder_fault(folder) == ""
        assert [path.name for path in run.iterdir()] == [folder["token"]]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_same_name_on_another_disk_is_recognised(tmp_path, monkeypatch):
    monkeypatch.setattr(node_probe, "NETWORK_SECONDS", 0.2)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    with compared(("folder",), folder=here) as [folder]:
        assert node_probe.folder_fault(folder | {"path": str(there)}) == "is not there"
        there.mkdir()
        assert node_probe.folder_fault(folder | {"path": str(there)}) == "is another folder there than on the driver"
    assert here.is_dir()


def test_a_folder_that_the_driver_only_reads_is_compared_by_its_content(tmp_path):
    for name in ("imgs", "panomasks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "copy" / "imgs").mkdir(parents=True)
    with compared(dataset__root=tmp_path / "data") as [folder]:
        assert node_probe.folder_fault(folder) == ""
        assert node_probe.folder_fault(folder | {"path": str(tmp_path / "copy")}) == "is there without panomasks"
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["imgs", "panomasks"]


def test_a_file_is_compared_by_its_size_and_a_pattern_by_its_folder(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"123")
    with compared(predict__input=tmp_path / "a.mp4") as [file]:
        (tmp_path / "a.mp4").write_bytes(b"1")
        assert node_probe.folder_fault(file) == "has 1 bytes there, and 3 on the driver"
    with compared(predict__input=tmp_path / "*.mp4") as [folder]:
        assert folder["path"] == str(tmp_path)
    with compared(predict__input=tmp_path / "nowhere" / "b.mp4") as folders:
        assert folders == []            # the verb itself says that it is not there


def test_the_file_of_a_killed_check_is_removed_by_the_next(tmp_path):
    stale = tmp_path / f"{TOKEN}old"
    stale.write_text("old")
    os.utime(stale, (time.time() - 7200, time.time() - 7200))
    with compared(("folder",), folder=tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_driver_itself_has_no_problem():
    answer = node_probe.probe("jobs.make_shards", [])
    assert list(_problems(answer, [])) == []
    assert answer["for_gpus"] == torch.backends.cuda.is_built()


@pytest.mark.parametrize(("change", "what", "cure"), [
    ({"missing": ["einops"]}, "lacks the packages of einops", INSTALL),
    ({"import_error": "OSError: libGL.so.1"}, "cannot import the verb (OSError: libGL.so.1)", SAME_CODE),
    ({"for_gpus": False}, "has GPUs and a build of torch without them", FOR_GPUS),
    ({"versions": {"torch": "2.12.0"}}, "has torch 2.12.0, and the driver", INSTALL),
    ({"versions": {"this project": "0123"}}, "has this project 0123, and the driver", SAME_CODE),
    ({"faults": {"folder": "is not there"}}, "folder=/data/run is not there", SHARE),
    ({"faults": {"folder": f"{CANNOT_WRITE} (Read-only file system)"}}, "folder=/data/run cannot be written", WRITE),
    ({"faults": {"folder": f"{CANNOT_READ} (Permission denied)"}}, "folder=/data/run cannot be read there", READ)])
def test_each_fault_has_a_line_with_its_cure(change, what, cure):
    answer = {"missing": [], "import_error": "", "versions": node_probe.versions(), "for_gpus": True,
              "faults": {"folder": ""}}
    change = {name: answer[name] | value if isinstance(value, dict) else value for name, value in change.items()}
    [problem] = _problems(answer | change, [{"setting": "folder", "path": "/data/run"}], gpus=True)
    assert problem[0].startswith(what)
    assert problem[1].endswith(cure)


def test_hosts_with_the_same_problem_share_a_line():
    problem = ("lacks the packages of av", "install them")
    lines = _lines({f"h{host}": [problem] for host in range(7)} | {"h9": []})
    assert lines == ["h0, h1, h2, h3, h4 and 2 more hosts: lacks the packages of av; install them"]


def test_a_build_for_cpus_and_one_for_gpus_agree(monkeypatch):
    monkeypatch.setattr(node_probe.importlib.metadata, "version", lambda package: "2.13.0+cu130")
    assert node_probe.versions()["torch"] == "2.13.0"


def test_every_module_that_is_looked_for_is_a_dependency_of_this_project():
    assert node_probe.missing_modules() == []


@pytest.mark.slow
def test_a_host_is_probed_in_less_than_ten_seconds_of_its_processor():
    """All hosts are probed at once (tests/cluster/test_preflight.py). `jobs.demo` imports what five verbs import."""
    script = ("import time; from jobs.node_probe import probe; answer = probe('jobs.demo', []); "
              "print(time.process_time(), answer['import_error'])")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, error = done.stdout.split(" ", 1)
    assert error.strip() == ""
    assert float(seconds) < 10


def test_the_cure_for_missing_packages_is_in_the_readme():
    assert RUNTIME_ENVIRONMENT in (ROOT / "README.md").read_text()
    first, second = json.loads(RUNTIME_ENVIRONMENT)["pip"]
    assert (ROOT / first.partition("}/")[2]).is_file()
    assert second == "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"


def test_what_a_verb_asks_for():
    cluster = ClusterConfig(workers=3, actors=4, gpus_per_actor=0.5)
    assert {name: demand(cluster).count for name, demand in DEMANDS.items()} == {
        "tasks": 1, "workers": 3, "pool": 1, "actors": 4}
    assert preflight.actors_of(cluster).each == {"CPU": 1, "GPU": 0.5}
