"""What a cluster can hold: the nodes that it has, or those that its autoscaler may add, process by process."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config

from jobs.cluster import ClusterConfig
from jobs.cluster_room import actors_of, room_of, workers_of

ROOT = Path(__file__).resolve().parents[2]


def nodes(*sizes: dict[str, float]) -> list[dict]:
    return [{"Alive": True, "Resources": size} for size in sizes]


def test_a_process_must_fit_into_one_node():
    """Three nodes with one CPU each have no room for a process that needs two."""
    room = room_of(nodes({"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 1.0}), None)
    assert room.fault(workers_of(ClusterConfig(workers=3))) == ""
    fault = room.fault(workers_of(ClusterConfig(workers=1, cpus_per_worker=2)))
    assert fault.startswith("1 workers with 2 CPUs each do not fit, the cluster has room for 0: it has 3 x node")
    assert "Lower cluster.workers, cluster.cpus_per_worker or cluster.gpus_per_worker" in fault
    assert "ray start --address" in fault


def test_a_training_that_may_shrink_begins_where_only_its_fewest_workers_fit():
    room = room_of(nodes({"CPU": 1.0}), None)
    assert room.fault(workers_of(ClusterConfig(workers=3, min_workers=1))) == ""
    assert "Lower cluster.min_workers," in room.fault(workers_of(ClusterConfig(workers=3, min_workers=2)))
    with pytest.raises(ValueError, match=r"cluster\.min_workers=3 must be .* at most cluster\.workers=2"):
        ClusterConfig(workers=2, min_workers=3)


def test_a_node_that_is_gone_has_no_room():
    alive, gone = nodes({"CPU": 1.0}, {"CPU": 8.0})
    assert room_of([alive, gone | {"Alive": False}], None).holds({"CPU": 1}) == 1


def test_fractions_share_a_node():
    room = room_of(nodes({"CPU": 2.0, "GPU": 1.0}), None)
    assert room.holds({"CPU": 0.5, "GPU": 0.5}) == 2
    assert room.holds({"CPU": 0.5, "GPU": 0}) == 4


@pytest.fixture
def growing() -> dict:
    """The autoscaler of `ray_cluster.yaml`: a head with 6 CPUs, and up to 16 workers with 7 CPUs and a GPU each."""
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def test_a_cluster_is_judged_by_what_it_can_become(growing):
    room = room_of(nodes({"CPU": 6.0}), growing)
    assert room.holds({"CPU": 1}) == 6 + 16 * 7
    assert room.fault(workers_of(ClusterConfig(workers=16, gpus_per_worker=1))) == ""
    fault = room.fault(workers_of(ClusterConfig(workers=17, gpus_per_worker=1)))
    assert "room for 16: it can have 1 x head with 6 CPUs, 16 x gpu_worker with 7 CPUs and 1 GPUs" in fault
    assert "raise max_workers of a node type" in fault
    assert room.fault(actors_of(ClusterConfig(gpus_per_actor=2)))       # no node type has two


def test_all_types_together_are_bounded_by_max_workers_of_the_cluster(growing):
    growing["max_workers"] = 3
    assert room_of([], growing).holds({"CPU": 1, "GPU": 1}) == 3


def test_a_type_of_unknown_size_may_hold_anything(growing):
    del growing["available_node_types"]["gpu_worker"]["resources"]
    assert room_of([], growing).fault(workers_of(ClusterConfig(workers=99, gpus_per_worker=8))) == ""


def test_workers_may_be_of_the_type_of_the_head(growing):
    growing["available_node_types"]["head"]["max_workers"] = 2
    assert room_of([], growing).holds({"CPU": 6}) == 1 + 16     # all workers may be of the other type, which is larger
    del growing["available_node_types"]["gpu_worker"]
    assert room_of([], growing).holds({"CPU": 6}) == 1 + 2


def test_machines_that_one_owns_are_known_once_all_of_them_run():
    """`ray up` does not know their sizes before, and Ray would wait endlessly for a GPU that none has."""
    config = prepare_config(yaml.safe_load((ROOT / "infra" / "own_machines.yaml").read_text()))
    with_gpu = workers_of(ClusterConfig(workers=1, gpus_per_worker=1))
    machines = nodes({"CPU": 8.0}, {"CPU": 8.0}, {"CPU": 8.0})
    assert room_of(machines[:2], config).fault(with_gpu) == ""
    fault = room_of(machines, config).fault(with_gpu)
    assert "1 workers with 1 CPUs and 1 GPUs each do not fit, the cluster has room for 0: it has 3 x node" in fault


def test_the_groups_of_kuberay_are_node_types():
    _, cluster = yaml.safe_load_all((ROOT / "infra" / "kuberay_cluster.yaml").read_text())
    cluster["metadata"]["namespace"] = "default"
    room = room_of([], _derive_autoscaling_config_from_ray_cr(cluster))
    assert room.holds({"CPU": 1, "GPU": 1}) == 16
    assert room.holds({"CPU": 1}) == 6 + 16 * 7
