"""`ray up` accepts `ray_cluster.yaml` and its twin for machines of one's own, which do what the README promises."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]


FILES = ("ray_cluster.yaml", "infra/own_machines.yaml")


@pytest.fixture(params=FILES)
def cluster(request) -> dict:
    return yaml.safe_load((ROOT / request.param).read_text())


@pytest.fixture
def aws() -> dict:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def test_it_is_valid_against_rays_own_schema(cluster):
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    validate_config(prepare_config(cluster))      # as `ray up` does, defaults filled in


def test_a_field_ray_does_not_know_would_be_found(cluster):
    with pytest.raises(jsonschema.ValidationError):
        validate_config({**cluster, "idle_minutes": 3})


def test_the_head_has_no_gpu_and_gpu_workers_scale_from_zero(aws):
    types = aws["available_node_types"]
    assert types[aws["head_node_type"]]["resources"]["GPU"] == 0
    gpu = [kind for kind in types.values() if kind["resources"].get("GPU", 0) > 0]
    assert gpu
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in gpu)


def test_the_image_is_of_the_pinned_ray_and_of_a_python_that_the_project_takes(cluster):
    image = f"rayproject/ray:{pinned()['ray']}-py311"
    assert (cluster["docker"]["head_image"], cluster["docker"]["worker_image"]) == (image, f"{image}-gpu")
    assert f"FROM {image}${{FLAVOUR}}" in (ROOT / "infra" / "Dockerfile").read_text()


def test_hosts_share_data_have_a_token_and_enough_file_descriptors(cluster):
    assert any("-v /data:/data" in option for option in cluster["docker"]["run_options"])
    assert any("mountpoint -q /data ||" in command for command in cluster["initialization_commands"])
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    for role in ("head", "worker"):
        start = cluster[f"{role}_start_ray_commands"][-1]
        assert "RAY_AUTH_MODE=token" in start
        assert "ulimit -n 65536" in start


def test_every_command_is_a_line_that_a_shell_can_read(cluster):
    for name, commands in cluster.items():
        for command in commands if name.endswith("_commands") else ():
            subprocess.run(["sh", "-n", "-c", command], check=True)


def test_every_dependency_is_pinned_in_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    names = {re.split(r"[\[=<> ]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names <= pinned().keys()


def pinned() -> dict[str, str]:
    """The versions of the constraints, by package."""
    lines = (ROOT / "infra" / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in pairs}
