"""`ray up ray_cluster.yaml` against a server that answers as AWS does, up to the instance that becomes the head."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

pytest.importorskip("boto3", reason="boto3 is not installed; pip install -e '.[aws]'")
moto = pytest.importorskip("moto.server", reason="moto is not installed; pip install 'moto[ec2]'")

import boto3  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
FAKE = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-west-2",
        "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}


@pytest.fixture
def aws(monkeypatch):
    """The address of a server with no instance, and variables that lead every client to it."""
    for name, value in FAKE.items():
        monkeypatch.setenv(name, value)
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    yield f"http://{host}:{port}"
    server.stop()


def test_the_head_is_started_with_the_type_image_disk_and_tags_of_the_file(aws, tmp_path):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 32)
    log = tmp_path / "up.log"
    with log.open("w") as output:
        up = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "up", "--yes", "--no-config-cache", "ray_cluster.yaml"],
            cwd=ROOT, env=os.environ | {"HOME": str(tmp_path)}, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True)
    try:
        head = first_instance(up, log)
    finally:
        with suppress(ProcessLookupError):          # it would try for minutes to reach the instance by ssh
            os.killpg(up.pid, signal.SIGKILL)
        up.wait()
    node = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())["available_node_types"]["head"]["node_config"]
    tags = {tag["Key"]: tag["Value"] for tag in head["Tags"]}
    assert head["InstanceType"] == node["InstanceType"]
    assert head["ImageId"] == node["ImageId"]
    assert tags["ray-node-type"] == "head"
    assert tags["ray-cluster-name"] == "maxtron-on-ray"
    assert head["IamInstanceProfile"]["Arn"].endswith("ray-autoscaler-v1")      # with which the head starts workers
    assert head["SecurityGroups"]


def first_instance(up: subprocess.Popen, log: Path, seconds: float = 120) -> dict:
    """The instance that `ray up` starts. Fails with its log where it ends without one."""
    client = boto3.client("ec2")
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        instances = [instance for reservation in client.describe_instances()["Reservations"]
                     for instance in reservation["Instances"]]
        if instances:
            return instances[0]
        assert up.poll() is None, log.read_text()
        time.sleep(0.5)
    raise AssertionError(log.read_text())
