"""The part of jobs.cluster that needs no cluster: the settings of a submitted job, and work in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from jobs import cluster, code_version
from jobs.cluster import (
    SUBMITTED_JOB,
    WORKER_ENVIRONMENT,
    ClusterConfig,
    connect,
    in_groups,
    inside_a_job,
    results_of,
    submitting,
    worker_environment,
)


class Adder:
    """An actor that is built with one number and adds it to each row's."""

    def __init__(self, *, offset: int) -> None:
        self.offset = offset

    def __call__(self, *, value: int) -> dict[str, int]:
        return {"sum": value + self.offset}

    def together(self, rows: list[dict[str, int]]) -> Iterator[dict[str, int]]:
        """The same for several rows at once."""
        return ({**self(**row), "rows": len(rows)} for row in rows)


@pytest.fixture
def job(monkeypatch):
    """This process as a submitted job that sets OMP_NUM_THREADS itself."""
    settings = {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "4"}, "working_dir": "gcs://_ray_pkg_1.zip"}}
    monkeypatch.setenv(SUBMITTED_JOB, json.dumps(settings))


def test_outside_a_job_workers_get_all_variables(monkeypatch):
    monkeypatch.delenv(SUBMITTED_JOB, raising=False)
    assert not inside_a_job()
    assert worker_environment() == WORKER_ENVIRONMENT


def test_a_variable_that_the_job_has_set_is_not_set_again(job):
    assert inside_a_job()
    assert worker_environment().keys() == WORKER_ENVIRONMENT.keys() - {"OMP_NUM_THREADS"}


def test_a_job_without_git_is_named_by_its_package(job, monkeypatch, tmp_path):
    monkeypatch.setattr(code_version, "__file__", str(tmp_path / "code_version.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_version.code_version() == {"commit": "gcs://_ray_pkg_1.zip", "changed": False}


@pytest.mark.parametrize("value", ["abc", "[]", "", '{"runtime_env": 3}'])
def test_a_variable_of_a_job_that_was_never_submitted_is_named(monkeypatch, value):
    monkeypatch.setenv(SUBMITTED_JOB, value)
    with pytest.raises(ValueError, match=f"{SUBMITTED_JOB}={re.escape(repr(value))} does not come from .*; unset it"):
        worker_environment()


def test_without_docstrings_ray_is_not_started(monkeypatch):
    monkeypatch.setattr(cluster, "sys", SimpleNamespace(flags=SimpleNamespace(optimize=2)))
    with pytest.raises(ValueError, match=r"python -OO \(PYTHONOPTIMIZE=2\) removes them; leave it out"):
        connect(ClusterConfig())


def test_in_process_one_actor_works_through_all_rows_in_order():
    rows = [{"value": value} for value in (1, 2, 3)]
    results = results_of(Adder, rows, arguments={"offset": 10}, cluster=ClusterConfig(in_process=True))
    assert [result["sum"] for result in results] == [11, 12, 13]


def test_rows_that_are_one_task_come_back_one_by_one():
    results = results_of(Adder, [{"value": value} for value in range(5)], arguments={"offset": 10}, together=2,
                         cluster=ClusterConfig(in_process=True))
    assert [(result["sum"], result["rows"]) for result in results] == [(10, 2), (11, 2), (12, 2), (13, 2), (14, 1)]


@pytest.mark.parametrize(("rows", "actors", "sizes"), [
    (20, 2, [8, 8, 4]), (8, 2, [4, 4]), (9, 4, [2, 2, 2, 2, 1]), (3, 5, [1, 1, 1]), (0, 2, [])])
def test_no_task_is_so_large_that_an_actor_would_get_none(rows, actors, sizes):
    groups = in_groups([{"value": row} for row in range(rows)], 8, ClusterConfig(actors=actors))
    assert [len(group) for group in groups] == sizes
    assert [row["value"] for group in groups for row in group] == list(range(rows))


@pytest.mark.parametrize("setting", ["workers", "actors", "local_cpus"])
def test_a_pool_without_processes_is_refused(setting):
    with pytest.raises(ValueError, match=rf"cluster\.{setting}=0 must be at least 1; cluster\.in_process=true"):
        ClusterConfig(**{setting: 0})


def test_the_command_of_a_job_is_the_line_that_submits_it_without_values_of_variables(monkeypatch):
    monkeypatch.delenv(SUBMITTED_JOB, raising=False)
    assert submitting() == []
    settings = {"runtime_env": {"pip": ["av"], "env_vars": {"AWS_SECRET_ACCESS_KEY": "hidden"}, "_ray_commit": "1",
                                "working_dir": "gcs://_ray_pkg_1.zip"}}
    monkeypatch.setenv(SUBMITTED_JOB, json.dumps(settings))
    monkeypatch.setattr("jobs.joined_cluster.dashboard", "10.0.0.1:8265")
    assert submitting() == ["ray", "job", "submit", "--address", "http://10.0.0.1:8265", "--working-dir", ".",
                            "--runtime-env-json", '{"pip": ["av"], "env_vars": {"AWS_SECRET_ACCESS_KEY": "..."}}', "--"]
