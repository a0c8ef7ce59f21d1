"""`ray_cluster.yaml` is a file `ray up` accepts, and says what the README promises."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster() -> dict:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def test_it_is_valid_against_rays_own_schema(cluster):
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    validate_config(prepare_config(cluster))      # as `ray up` does, defaults filled in


def test_a_field_ray_does_not_know_would_be_found(cluster):
    with pytest.raises(jsonschema.ValidationError):
        validate_config({**cluster, "idle_minutes": 3})


def test_the_head_has_no_gpu_and_gpu_workers_scale_from_zero(cluster):
    types = cluster["available_node_types"]
    assert types[cluster["head_node_type"]]["resources"]["GPU"] == 0
    gpu = [kind for kind in types.values() if kind["resources"].get("GPU", 0) > 0]
    assert gpu
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in gpu)


def test_every_dependency_is_pinned_in_the_constraints():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {re.split(r"[\[=<> ]", line)[0].lower().replace("_", "-") for line in wanted}
    pinned = {line.split("==")[0].lower().replace("_", "-")
              for line in (ROOT / "infra" / "constraints.txt").read_text().splitlines() if "==" in line}
    assert names <= pinned
