"""A Ray cluster of one machine that outlives the verbs which join it or are submitted to it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
RAY = str(Path(sys.executable).with_name("ray"))

# Ray's own processes among those with such names: agents of the machine, and actors that outlive every job. The
# cleaner of a training that was stopped ends once Ray's state service has told it so, whenever that answers.
OWN = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::_StatsActor",
       "ray::_AutoscalingCoordinatorActor", "ray::ActorLocationTracker", "ray::_UsageCollectionActor",
       "ray::PlacementGroupCleaner")


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [str(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


class Head:
    """`ray start --head --block` with ports, temporary folder, home folder and token of its own.

    grows: the node types that its autoscaler may add, as the config of `ray up` has them; empty: it has none.
    """

    def __init__(self, home: Path, *, token: str | None = None, cpus: int = 2,
                 grows: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")       # sockets below it need a short path
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
            "HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token or secrets.token_hex(32),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        port, dashboard, client, agent, metrics = free_ports(5)
        self.address = f"http://127.0.0.1:{dashboard}"
        self.joining = {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_AUTH_MODE": "token",
                        "RAY_AUTH_TOKEN": self.env["RAY_AUTH_TOKEN"]}       # variables of a verb that joins
        self.log = (home / "head.log").open("w+")
        growing = []
        if grows:
            self.env |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                         "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "600"}       # of a node that starts on a busy machine
            (home / "autoscaler.json").write_text(json.dumps(growing_config(f"127.0.0.1:{port}", cpus, grows)))
            growing = [f"--autoscaling-config={home / 'autoscaler.json'}"]
        self.process = subprocess.Popen(
            [RAY, "start", "--head", "--block", *growing, f"--num-cpus={cpus}", f"--object-store-memory={200 * 2**20}",
             f"--temp-dir={self.folder}", "--node-ip-address=127.0.0.1", f"--port={port}",
             "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
             f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}", "--disable-usage-stats"],
            cwd=home, env=self.env, stdout=self.log, stderr=subprocess.STDOUT)

    def add_machine(self, *, cpus: int) -> tuple[subprocess.Popen, str]:
        """Start another node of this cluster; returns its process, for `end_tree`, and the id that it will have."""
        node = secrets.token_hex(28)
        agent, metrics = free_ports(2)
        words = [RAY, "start", "--block", f"--address={self.joining['RAY_ADDRESS']}", f"--num-cpus={cpus}",
                 f"--object-store-memory={80 * 2**20}", f"--temp-dir={self.folder}", "--node-ip-address=127.0.0.1",
                 f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}", "--disable-usage-stats"]
        process = subprocess.Popen(words, env=self.env | {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": node},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return process, node

    def wait_until_ready(self, seconds: float = 120) -> None:
        request = urllib.request.Request(f"{self.address}/api/jobs/",
                                         headers={"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"})
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.process.poll() is None, self.said()
            try:
                with urllib.request.urlopen(request, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise AssertionError(f"no answer from {self.address}: {self.said()}")

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()[-3000:]

    def submit(self, *command: str, follow: bool = True, name: str = "") -> tuple[int, str]:
        """Exit code and log of `ray job submit` of this checkout, followed to its end unless `follow` is off."""
        runtime = {"excludes": [".git"], "env_vars": {"MLFLOW_DISABLE_TELEMETRY": "true"}}
        options = [*([] if follow else ["--no-wait"]), *(["--submission-id", name] if name else [])]
        return self.job("submit", *options, "--working-dir", ".", "--runtime-env-json", json.dumps(runtime), "--",
                        *command)

    def job(self, action: str, *arguments: str) -> tuple[int, str]:
        """Exit code and output of `ray job <action>`."""
        done = subprocess.run([RAY, "job", action, "--address", self.address, *arguments], cwd=ROOT, env=self.env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False)
        return done.returncode, done.stdout

    def workers(self) -> list[psutil.Process]:
        """The processes in which this cluster does the work of a verb: actors and tasks."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        names = {process: process_name(process) for process in below}
        return [process for process, name in names.items() if works(name)]

    def close(self) -> None:
        """End the processes this head started, by their ids, and no other."""
        end_tree(self.process, patience=5)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def growing_config(address: str, cpus: int, types: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The config of an autoscaler whose nodes are all on this machine. cpus: of the head at the address."""
    head = {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0}
    commands = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
                "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude",
                "rsync_filter")
    return {"cluster_name": "growing", "provider": {"type": "fake_multinode", "gcs_address": address},
            "max_workers": sum(kind["max_workers"] for kind in types.values()), "head_node_type": "ray.head.default",
            "available_node_types": {"ray.head.default": head, **types}, "upscaling_speed": 1.0,
            "idle_timeout_minutes": 5, "auth": {}, "docker": {}, "file_mounts": {},
            "file_mounts_sync_continuously": False, **{command: [] for command in commands}}


def end_tree(process: subprocess.Popen | psutil.Process, *, patience: float = 0) -> None:
    """End a process and all that it started, by their ids. patience: seconds to end by themselves before."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        ours = [*parent.children(recursive=True), parent]
        if patience:
            for one in ours:
                with suppress(psutil.NoSuchProcess):
                    one.terminate()
            ours = psutil.wait_procs(ours, timeout=patience)[1]
        for one in ours:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait()


def works(command: str) -> bool:
    """Whether a process with this command line is an actor or a task of a verb."""
    return command.startswith("ray::") and not command.startswith(OWN)


def process_name(process: psutil.Process) -> str:
    """The command line of a process; "" where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
