"""The manifests for KubeRay: fields that its types have, one cluster in both, and Ray's own reader of them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import validate_config

from jobs.recipes import find_recipe

ROOT = Path(__file__).resolve().parents[2]

# The fields of ray.io/v1 that may stand at each level, from KubeRay's API reference.
CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "authOptions", "headGroupSpec",
           "workerGroupSpecs", "suspend", "managedBy", "gcsFaultToleranceOptions", "headServiceAnnotations"}
HEAD = {"rayStartParams", "template", "serviceType", "enableIngress", "headService"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template",
         "idleTimeoutSeconds", "suspend", "scaleStrategy"}
JOB = {"entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
       "rayClusterSpec", "runtimeEnvYAML", "activeDeadlineSeconds", "jobId", "metadata", "submitterPodTemplate",
       "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "clusterSelector", "suspend"}
CONTAINER = {"name", "image", "resources", "ports", "volumeMounts", "env", "lifecycle"}


@pytest.fixture(scope="module")
def volume_and_cluster() -> list[dict]:
    return list(yaml.safe_load_all((ROOT / "infra" / "kuberay_cluster.yaml").read_text()))


@pytest.fixture(scope="module")
def job() -> dict:
    return yaml.safe_load((ROOT / "infra" / "kuberay_job.yaml").read_text())


@pytest.fixture(params=["cluster", "job"])
def spec(request, volume_and_cluster, job) -> dict:
    return volume_and_cluster[1]["spec"] if request.param == "cluster" else job["spec"]["rayClusterSpec"]


def test_kinds_and_fields_are_those_of_kuberay(volume_and_cluster, job, spec):
    volume, cluster = volume_and_cluster
    assert (volume["apiVersion"], volume["kind"]) == ("v1", "PersistentVolumeClaim")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert (job["apiVersion"], job["kind"], job["spec"].keys() - JOB) == ("ray.io/v1", "RayJob", set())
    assert spec.keys() <= CLUSTER
    assert spec["headGroupSpec"].keys() <= HEAD
    assert all(group.keys() <= GROUP for group in spec["workerGroupSpecs"])
    for pod in pods(spec):
        assert all(container.keys() <= CONTAINER for container in pod["containers"])


def test_the_job_has_the_cluster_of_the_other_manifest(volume_and_cluster, job):
    assert job["spec"]["rayClusterSpec"] == volume_and_cluster[1]["spec"]


def test_rays_autoscaler_reads_a_head_without_gpus_and_a_group_with_gpus_that_scales_from_zero(spec):
    config = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "c", "namespace": "n"}, "spec": spec})
    validate_config(config)
    types = config["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 6
    assert "GPU" not in types["headgroup"]["resources"]
    worker = types["gpu-worker"]
    assert (worker["resources"]["CPU"], worker["resources"]["GPU"]) == (7, 1)
    assert (worker["min_workers"], worker["max_workers"]) == (0, 16)
    assert spec["enableInTreeAutoscaling"] is True


def test_all_pods_see_one_volume_that_many_nodes_can_write_to(volume_and_cluster, spec):
    volume = volume_and_cluster[0]
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(spec):
        claims = {entry["name"]: entry["persistentVolumeClaim"]["claimName"] for entry in pod["volumes"]
                  if "persistentVolumeClaim" in entry}
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert claims[mounts["/data"]] == volume["metadata"]["name"]
        assert set(mounts.values()) == {entry["name"] for entry in pod["volumes"]}


def test_ray_is_the_pinned_one_and_asks_for_a_token(spec):
    constraints = (ROOT / "infra" / "constraints.txt").read_text().splitlines()
    assert f"ray=={spec['rayVersion']}" in constraints
    assert spec["authOptions"] == {"mode": "token"}


def test_the_entrypoint_is_a_verb_with_a_recipe_and_absolute_folders(job):
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "jobs.train_stage_one"]
    find_recipe(words[words.index("--recipe") + 1])
    folders = [word.partition("=")[2] for word in words if word.startswith(("folder=", "dataset.root="))]
    assert len(folders) == 2
    assert all(folder.startswith("/data/") for folder in folders)


def pods(spec: dict) -> list[dict]:
    """The pod of the head and those of the workers."""
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
