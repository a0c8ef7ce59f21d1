"""A simulated schedule keeps the laws of a real one, and names what stops it from getting faster."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.estimating.schedule import ENDLESS, Cluster, Steps, Tasks, largest_useful

FREE = Cluster(storage=ENDLESS, network=ENDLESS, latency=0.0, driver=0.0, tracker=0.0, start=0.0)
VIDEOS = Tasks(tasks=1000, seconds=10.0, read=1e6, written=1e5, pieces="videos")
TRAINING = Steps(steps=100, batch=64, seconds=1.0, update=0.0, decode=0.0, loaders=0, read=1e6, weights=1e8, records=5)


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 8))
def test_tasks_that_share_nothing_take_their_turns(tasks, machines, cpus):
    work = Tasks(tasks=tasks, seconds=2.0, pieces="videos")
    turns = -(-tasks // (machines * cpus))
    assert work.time(replace(FREE, machines=machines, cpus=cpus)) == pytest.approx(2.0 * turns)


@given(st.integers(1, 64), st.integers(1, 64))
def test_more_machines_never_take_longer_where_nothing_is_exchanged(few, more):
    few, more = sorted((few, more))
    for work in (VIDEOS, replace(TRAINING, weights=0.0)):
        times = [work.time(Cluster(machines=machines, latency=0.0, start=0.0)) for machines in (few, more)]
        assert times[1] <= times[0] * (1 + 1e-9)


def test_a_verb_without_a_task_takes_what_it_does_alone():
    assert replace(VIDEOS, tasks=0, alone=3.0).time(FREE) == 3.0


@pytest.mark.parametrize("work", [VIDEOS, TRAINING])
def test_machines_without_work_cost_nothing(work):
    huge = replace(FREE, machines=10**9, cpus=10**6)
    assert work.time(huge) == pytest.approx(work.time(replace(FREE, machines=work.most_processes)))


def test_no_schedule_is_faster_than_what_is_shared():
    many = replace(FREE, machines=500)
    assert VIDEOS.time(replace(many, storage=1e7)) >= 1000 * 1.1e6 / 1e7
    assert VIDEOS.time(replace(many, driver=0.5)) >= 1000 * 0.5
    assert TRAINING.time(replace(FREE, machines=64, tracker=100.0)) == 5 * 100.0


@pytest.mark.parametrize("work", [VIDEOS, TRAINING])
def test_the_start_of_ray_comes_before_everything_else(work):
    assert work.time(replace(FREE, connect=6.0)) == work.time(FREE) + 6.0


def test_tasks_that_are_put_together_take_as_long():
    million = replace(VIDEOS, tasks=1_000_000)
    cluster = replace(FREE, machines=10, storage=1e9)
    assert million.time(cluster) == pytest.approx(1000 * VIDEOS.time(cluster), rel=0.05)


@pytest.mark.parametrize(("work", "cluster", "limit"), [
    (replace(VIDEOS, tasks=8, pieces="shards"), FREE, "shards"), (VIDEOS, replace(FREE, storage=1e6), "storage"),
    (VIDEOS, replace(FREE, driver=1.0), "driver"), (VIDEOS, replace(FREE, start=1e4), "start"),
    (replace(VIDEOS, alone=1e5), FREE, "what the verb does alone"), (TRAINING, FREE, "samples of a step"),
    (TRAINING, replace(FREE, network=1e7), "network"), (TRAINING, replace(FREE, tracker=1e3), "tracker")])
def test_the_reason_is_what_is_short(work, cluster, limit):
    machines, reason = largest_useful(work, cluster)
    assert reason == limit
    here, twice = (work.time(replace(cluster, machines=count)) for count in (machines, 2 * machines))
    assert twice > 0.9 * here


def test_loaders_hide_behind_the_network_until_they_are_slower():
    hidden = replace(TRAINING, decode=1.0, loaders=1)
    assert hidden.time(FREE) == replace(TRAINING, decode=0.0).time(FREE)
    assert replace(hidden, decode=3.0).time(FREE) == pytest.approx(3 * hidden.time(FREE))


def test_processes_start_beside_those_of_ray_which_share_the_cores():
    cluster = Cluster(cpus=4, start=8.0)
    assert cluster.started(1) == 8.0                            # with three helpers: a core for each
    assert cluster.started(4) == 8.0 * 7 / 4
    assert cluster.started(4, before=1) == cluster.started(4) + 8.0
    assert replace(VIDEOS, networks=False).time(replace(FREE, start=8.0)) == VIDEOS.time(FREE) + 8.0
