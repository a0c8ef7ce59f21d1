"""Several hosts on this machine: each with its own network, name, processes, temporary and home folders.

A host is a set of Linux namespaces, wired to the others by a bridge that lies in a namespace of its own, so nothing of
this machine's network is touched. Addresses are of 192.0.2.0/24, which is reserved for examples. All hosts see the
files of this machine; `/tmp` and the folders that are given as private are different on each.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6379
DASHBOARD = 8265

# Inside the namespaces of a host: its name, its own folders, then a process that holds everything alive.
BOOT = """
set -e
mount --make-rprivate /
hostname {name}
mount --bind {base}/{name}/hosts /etc/hosts
{binds}
mount --bind {base}/{name}/tmp /tmp
ip link set lo up
touch {base}/{name}/up
exec sleep infinity
"""


def why_not() -> str:
    """Why hosts cannot be made here; "" where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "unshare", "nsenter", "hostname") if shutil.which(tool) is None]
    if missing:
        return f"no {', '.join(missing)} here"
    tried = subprocess.run(["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "true"], check=False,
                           capture_output=True)
    return "" if tried.returncode == 0 else "namespaces are not allowed here"


class Host:
    """One host. Its name resolves to `own_name_is`, 127.0.1.1 as on Debian, or to its address."""

    def __init__(self, base: Path, wire: str, index: int, *, private: Sequence[Path] = (), own_name_is: str = "",
                 second_interface: bool = False) -> None:
        self.name = f"h{index}"
        self.address = f"192.0.2.{index}"
        self.folder = base / self.name
        self.space = f"{wire}-{self.name}"
        for part in ("tmp", "home", *(f"private{number}" for number in range(len(private)))):
            (self.folder / part).mkdir(parents=True)
        others = "".join(f"192.0.2.{other} h{other}\n" for other in range(1, 5) if other != index)
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n{own_name_is or self.address} {self.name}\n{others}")
        binds = [f"mount --bind {self.folder}/private{number} {path}" for number, path in enumerate(private)]
        self._wire(wire, index, second_interface)
        boot = BOOT.format(name=self.name, base=base, binds="\n".join(binds))
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.space, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child",
             "--mount-proc", "sh", "-c", boot], stdout=subprocess.DEVNULL)
        self._wait_for((self.folder / "up").exists, 20)
        self.leader = self._leader()

    def _wire(self, wire: str, index: int, second_interface: bool) -> None:
        ip("netns", "add", self.space)
        ip("-n", wire, "link", "add", f"p{index}", "type", "veth", "peer", "name", "eth0", "netns", self.space)
        ip("-n", wire, "link", "set", f"p{index}", "master", "bridge", "up")
        if second_interface:        # which comes first, is up and leads nowhere
            ip("-n", self.space, "link", "add", "aaa0", "type", "veth", "peer", "name", "aaa1")
            ip("-n", self.space, "addr", "add", "198.51.100.1/24", "dev", "aaa0")
            ip("-n", self.space, "link", "set", "aaa1", "up")
            ip("-n", self.space, "link", "set", "aaa0", "up")
        ip("-n", self.space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.space, "link", "set", "eth0", "up")
        ip("-n", self.space, "link", "set", "lo", "up")
        ip("-n", self.space, "route", "add", "default", "dev", "eth0")

    def _leader(self) -> int:
        """The process of this host that entered its namespaces: the child of `unshare`."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def command(self, *words: str, environment: Mapping[str, str]) -> list[str]:
        """The words that start a program on this host."""
        given = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "TMPDIR": "/tmp", "LANG": "C.UTF-8",
                 "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", **environment}
        return ["nsenter", "--target", str(self.leader), "--net", "--mount", "--uts", "--pid", f"--wd={ROOT}",
                "env", "-i", *(f"{name}={value}" for name, value in given.items()), *words]

    def programs(self) -> list[str]:
        """The command lines of the processes that run here."""
        lines = []
        for process in ip("netns", "pids", self.space).split():
            with suppress(OSError):
                lines.append(Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace"))
        return lines

    @contextmanager
    def without(self, package: Path) -> Iterator[None]:
        """A block in which an installed package is empty on this host."""
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        with self._mounted(empty, package):
            yield

    @contextmanager
    def read_only(self, folder: Path) -> Iterator[None]:
        """A block in which this host cannot write into a folder."""
        with self._mounted(folder, folder):
            subprocess.run(self.command("mount", "-o", "remount,bind,ro", str(folder), environment={}), check=True)
            yield

    @contextmanager
    def _mounted(self, source: Path, place: Path) -> Iterator[None]:
        subprocess.run(self.command("mount", "--bind", str(source), str(place), environment={}), check=True)
        try:
            yield
        finally:
            subprocess.run(self.command("umount", str(place), environment={}), check=True)

    def kill(self) -> None:
        """Take the host away at once, with everything that runs on it."""
        with suppress(ProcessLookupError):
            os.kill(self.leader, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        subprocess.run(["ip", "netns", "delete", self.space], check=False, capture_output=True)

    @staticmethod
    def _wait_for(condition, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > ends:
                raise TimeoutError("the host did not start")
            time.sleep(0.05)


class Hosts:
    """Hosts with a Ray cluster: the first is the head, and a client may run on any. Close it.

    cpus: of each host. settings: of `Host`, by the index of the host, which begins at 1; those of 0 hold for all. The
    folder `private` is another one on each host.
    """

    def __init__(self, count: int = 3, *, cpus: int = 1, settings: Mapping[int, dict] | None = None,
                 head_options: Sequence[str] = ()) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="hosts-", dir="/var/tmp"))
        self.head_options = head_options
        self.wire = f"w{os.getpid() % 10000}{secrets.token_hex(1)}"
        self.private = self.base / "private"
        self.private.mkdir()
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16),
                            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.hosts: list[Host] = []
        self.nodes: list[subprocess.Popen] = []
        settings = settings or {}
        ip("netns", "add", self.wire)
        try:
            ip("-n", self.wire, "link", "add", "bridge", "type", "bridge")
            ip("-n", self.wire, "link", "set", "bridge", "up")
            for index in range(1, count + 1):
                given = {"private": [self.private], **settings.get(0, {}), **settings.get(index, {})}
                self.hosts.append(Host(self.base, self.wire, index, **given))
                self.start_ray(self.hosts[-1], cpus)
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def start_ray(self, host: Host, cpus: int) -> None:
        """Start Ray on a host; the first becomes the head."""
        is_head = host is self.hosts[0]
        role = (["--head", f"--port={PORT}", f"--dashboard-port={DASHBOARD}", "--dashboard-host=0.0.0.0",
                 *self.head_options] if is_head
                else [f"--address={self.hosts[0].address}:{PORT}"])
        words = [RAY, "start", "--block", *role, f"--num-cpus={cpus}", f"--node-ip-address={host.address}",
                 f"--object-store-memory={80 * 2**20}", "--disable-usage-stats", "--temp-dir=/tmp/ray"]
        with (host.folder / "ray.log").open("w") as log:
            self.nodes.append(subprocess.Popen(host.command(*words, environment=self.environment), stdout=log,
                                               stderr=subprocess.STDOUT))
        if is_head:
            self._wait_for_port(host)

    def _wait_for_port(self, host: Host) -> None:
        probe = f"import socket; socket.create_connection(('{host.address}', {PORT}), 1)"
        ends = time.monotonic() + 90
        while self.run(host, sys.executable, "-c", probe)[0]:
            if time.monotonic() > ends:
                raise TimeoutError((host.folder / "ray.log").read_text()[-2000:])
            time.sleep(0.5)

    def _wait_until_ready(self) -> None:
        script = (f"import ray, time; ray.init(address='{self.hosts[0].address}:{PORT}', logging_level='error')\n"
                  f"while sum(node['Alive'] for node in ray.nodes()) < {len(self.hosts)}: time.sleep(0.5)\n")
        code, output = self.run(self.hosts[0], sys.executable, "-c", script, seconds=180)
        assert code == 0, output
        submit = self.run(self.hosts[-1], RAY, "job", "list", "--address", self.jobs, seconds=120)
        assert submit[0] == 0, submit[1]

    @property
    def jobs(self) -> str:
        """The address for `ray job submit`."""
        return f"http://{self.hosts[0].address}:{DASHBOARD}"

    def run(self, host: Host, *words: str, seconds: float = 300, **environment: str) -> tuple[int, str]:
        """Exit code and output of a program on a host."""
        done = subprocess.run(host.command(*words, environment=self.environment | environment), check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
        return done.returncode, done.stdout

    def submit(self, *words: str, wait: bool = True, runtime: Mapping | None = None) -> str:
        """Log of `ray job submit` of this checkout from the last host; the last line of the entrypoint names its exit
        code, `ended with N`."""
        runtime = {"excludes": ["docs", "benchmarks/results"], **(runtime or {})}
        return self.run(self.hosts[-1], RAY, "job", "submit", "--address", self.jobs, "--working-dir", str(ROOT),
                        "--runtime-env-json", json.dumps(runtime), *([] if wait else ["--no-wait"]), "--", "sh", "-c",
                        f"{shlex.join(words)}; echo ended with $?", seconds=450)[1]

    def tasks_of_newest_job(self) -> list[dict]:
        """What Ray knows of each task of the last job: its name, node, and moments in milliseconds."""
        script = ("import json; from ray.util.state import list_tasks\n"
                  f"tasks = [vars(task) for task in list_tasks(address={self.jobs!r}, detail=True, limit=10_000)]\n"
                  "newest = max(tasks, key=lambda task: task['creation_time_ms'])['job_id']\n"
                  "print(json.dumps([task for task in tasks if task['job_id'] == newest], default=str))")
        code, said = self.run(self.hosts[0], sys.executable, "-c", script)
        assert code == 0, said
        return json.loads(said.splitlines()[-1])

    def wait_for(self, condition: Callable[[], bool], seconds: float = 240) -> None:
        """Wait until a condition holds; fails with the logs of all jobs."""
        ends = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends, self.logs()
            time.sleep(0.5)

    def logs(self) -> str:
        """The log of every job, for the message of a test that fails."""
        script = f"from ray.job_submission import JobSubmissionClient as C; c = C({self.jobs!r})\n"
        script += "for job in c.list_jobs(): print(job.status, c.get_job_logs(job.submission_id)[-6000:])"
        return self.run(self.hosts[0], sys.executable, "-c", script)[1]

    def drain(self, host: Host, seconds: int) -> None:
        """Tell the cluster that a host will be gone in some seconds."""
        address = f"{self.hosts[0].address}:{PORT}"
        script = (f"import ray; ray.init(address={address!r}, logging_level='error')\n"
                  f"print({{node['NodeManagerAddress']: node['NodeID'] for node in ray.nodes()}}[{host.address!r}])")
        code, said = self.run(self.hosts[0], sys.executable, "-c", script)
        assert code == 0, said
        code, said = self.run(self.hosts[0], RAY, "drain-node", "--address", address, "--node-id", said.split()[-1],
                              "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken back",
                              "--deadline-remaining-seconds", str(seconds))
        assert code == 0, said

    def training(self) -> list[Host]:
        """The hosts on which a training worker runs, the head first."""
        return [host for host in self.hosts if any("RayTrainWorker" in name for name in host.programs())]

    def close(self) -> None:
        """End everything that was started, and remove its files and networks."""
        for host in self.hosts:
            host.kill()
        for node in self.nodes:
            node.wait(timeout=20)
        for space in ip("netns", "list").split():
            if space.startswith(self.wire):         # also of a host that did not start
                ip("netns", "delete", space)
        shutil.rmtree(self.base, ignore_errors=True)


def ip(*words: str) -> str:
    """What the program `ip` prints. Raises RuntimeError with its error."""
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
