"""Whether the joined cluster can run a verb, before the verb does anything: room, packages, versions and folders.

One task on every machine looks for a file that the driver has just written into each folder of results, compares what
the driver has in the other folders of the recipe, imports the verb and compares versions. All problems are named at
once, a line each.
"""

from __future__ import annotations

import glob
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jobs import node_probe
from jobs.cluster import ClusterConfig, connect, inside_a_job, runtime_environment
from jobs.cluster_room import Demand, actors_of, connected_room, workers_of
from jobs.console import say
from jobs.surroundings import INSTALL
from pipeline import store
from pipeline.files import age

# What a verb asks of the cluster, by the name that it gives `jobs.verb.run`.
DEMANDS: dict[str, Callable[[ClusterConfig], Demand]] = {
    "tasks": lambda cluster: Demand(1, {"CPU": 1}, "tasks", "Give a node a CPU (ray start --num-cpus)"),
    "workers": workers_of,
    "pool": actors_of,
    "actors": lambda cluster: actors_of(cluster, count=cluster.actors),
}

SAME_CODE = "submit the job with --working-dir ., which brings the same code to all hosts"
FOR_GPUS = "install a build of torch for GPUs there, such as that of the default package registry"
SHARE = "all hosts must see the same one: mount a shared file system there, or name a path on one"
READ = "let the user that runs Ray there read it, or name another path"
WRITE = "let the user that runs Ray there write into it, or name another path"
REACH = "all hosts must reach the store: give the job the credentials and the endpoint (env_vars of --runtime-env-json)"
RIGHTS = {node_probe.CANNOT_READ: READ, node_probe.CANNOT_WRITE: WRITE}
ASK_RAY = "see `ray status`, restart Ray on it or take it out of the cluster"

TOKEN = ".preflight-"           # name of the file that the driver writes
NAMES = 100                     # entries of a folder that are compared
PATIENT_SECONDS = 10.0          # after which the wait for a host is told
ANSWER_SECONDS = 90.0           # for a host to answer
INSTALLING_SECONDS = 900.0      # the same, where the job brings packages that are installed first
STALE_SECONDS = 3600.0          # age of a file that a killed check left

Problem = tuple[str, str]       # what, cure


class NotReady(ValueError):
    """The cluster cannot run the verb. Its notes are the problems, a line each."""

    def __init__(self, verb: str, problems: Sequence[str]) -> None:
        super().__init__(f"this cluster cannot run {verb}, and nothing was done:")
        for problem in problems:
            self.add_note(problem)


def check_cluster(cluster: ClusterConfig, verb: str, uses: Sequence[str], paths: Mapping[str, Sequence[str]], *,
                  outputs: Sequence[str]) -> None:
    """Join the cluster and raise NotReady where it cannot run the verb.

    verb: its module. uses: names in `DEMANDS`. paths: absolute paths by the setting that names them. outputs: those of
    these settings whose folders are written into.
    """
    connect(cluster)
    started = time.perf_counter()
    room = connected_room()
    demands = [DEMANDS[use](cluster) for use in uses]
    problems = [f"the cluster: {fault}" for demand in demands if (fault := room.fault(demand))]
    with _compared(paths, outputs) as folders:
        answers = _answers(verb, folders)
    with_gpus = set(_hosts("GPU").values()) if any(demand.each.get("GPU") for demand in demands) else set()
    problems += _lines({host: _problems(answers[host], folders, gpus=host in with_gpus) for host in sorted(answers)})
    if problems:
        raise NotReady(verb, problems)
    say(f"the cluster is ready: {len(answers)} hosts checked in {time.perf_counter() - started:.1f} s")


def _answers(verb: str, folders: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any] | Problem]:
    """Host -> the answer of its probe, or why there is none."""
    import ray
    from ray.exceptions import RayError

    from jobs.sending import on_node

    waiting = {on_node(node_probe.probe, node, verb, folders): host for node, host in _hosts().items()}
    ends = time.monotonic() + (INSTALLING_SECONDS if _installs() else ANSWER_SECONDS)
    answers = {}
    while waiting and time.monotonic() < ends:
        ready, missing = ray.wait(list(waiting), num_returns=len(waiting), timeout=PATIENT_SECONDS)
        for reference in ready:
            try:
                answers[waiting.pop(reference)] = ray.get(reference)
            except RayError as error:
                answers[waiting.pop(reference)] = _failed(error)
        if missing:
            say(f"waiting for {', '.join(waiting[reference] for reference in missing[:5])}"
                + (f" and {len(missing) - 5} more hosts" if len(missing) > 5 else ""))
    return answers | dict.fromkeys(waiting.values(), ("does not answer", ASK_RAY))


def _hosts(resource: str = "") -> dict[str, str]:
    """Id -> name and address of the nodes that are alive. resource: only those that have it."""
    import ray

    return {node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})" for node in ray.nodes()
            if node["Alive"] and (not resource or node["Resources"].get(resource))}


def _failed(error: Exception) -> Problem:
    from ray.exceptions import RuntimeEnvSetupError

    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, RuntimeEnvSetupError):
        return f"cannot set up the job's runtime environment ({lines[-1].strip()[:300]})", \
            "put that right in --runtime-env-json, or install the packages on the host"
    return f"the check failed there ({lines[0][:300]})", ASK_RAY


def _installs() -> bool:
    """Whether the job's runtime environment brings packages, which each host installs first."""
    return bool({"pip", "uv", "conda", "container", "image_uri"} & runtime_environment().keys())


def _problems(answer: dict[str, Any] | Problem, folders: Sequence[Mapping[str, Any]], *,
              gpus: bool = False) -> Iterator[Problem]:
    """gpus: whether the host has GPUs that the verb asks for."""
    if isinstance(answer, tuple):
        yield answer
        return
    if answer["missing"]:
        yield f"lacks the packages of {', '.join(answer['missing'])}", INSTALL
    elif answer["import_error"]:
        yield f"cannot import the verb ({answer['import_error']})", INSTALL if inside_a_job() else SAME_CODE
    for name, version in node_probe.versions().items():
        there = answer["versions"][name]
        if there not in ("none", version):
            cure = SAME_CODE if name == "this project" else "install one version on all hosts, or " + INSTALL
            yield f"has {name} {there}, and the driver {version}", cure
    if gpus and not answer["for_gpus"]:
        yield "has GPUs and a build of torch without them", FOR_GPUS
    for folder in folders:
        if fault := answer["faults"][folder["setting"]]:
            yield f"{folder['setting']}={folder['path']} {fault}", _cure(folder, fault)


def _cure(folder: Mapping[str, Any], fault: str) -> str:
    """What to do about a fault of `node_probe.folder_fault`."""
    if "store" in folder:
        return REACH
    return next((cure for start, cure in RIGHTS.items() if fault.startswith(start)), SHARE)


def _lines(problems: Mapping[str, Iterator[Problem]]) -> list[str]:
    """A line for each problem, with the hosts that have it."""
    hosts: dict[Problem, list[str]] = {}
    for host, those in problems.items():
        for problem in those:
            hosts.setdefault(problem, []).append(host)
    return [f"{', '.join(names[:5])}{f' and {len(names) - 5} more hosts' if len(names) > 5 else ''}: {what}; {cure}"
            for (what, cure), names in hosts.items()]


@contextmanager
def _compared(paths: Mapping[str, Sequence[str]], outputs: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """What the hosts compare, for each path that the driver sees; files that are written for it are removed at the end.
    """
    token = TOKEN + uuid.uuid4().hex
    new = []
    folders = []
    for setting, group in paths.items():
        for index, path in enumerate(map(Path, group)):
            name = setting if len(group) == 1 else f"{setting}[{index}]"
            if (place := store.place_of(path)) is not None:
                folders.append({"setting": name, "path": place.address, "store": token if setting in outputs else ""})
                if setting in outputs:
                    store.remove_old_tokens(place.address, TOKEN, seconds=STALE_SECONDS)
                    store.write_token(place.address, token)
            elif setting in outputs and (created := _written(path, token)) is not None:
                new += created
                folders.append({"setting": name, "path": str(path), "token": token})
            elif (seen := _seen(path)) is not None:
                folders.append({"setting": name, **seen})
    try:
        yield folders
    finally:
        for folder in folders:
            if folder.get("store"):
                store.remove_token(folder["path"], token)
            elif "token" in folder:
                (Path(folder["path"]) / token).unlink(missing_ok=True)
        for path in reversed(new):
            with suppress(OSError):         # the folder of a run that has begun meanwhile
                path.rmdir()


def _written(folder: Path, token: str) -> list[Path] | None:
    """Write the file into a folder; returns the folders that were created for it, None where it cannot be written."""
    created = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(f"{TOKEN}*"):
            with suppress(FileNotFoundError):       # another check has just ended
                if age(stale) > STALE_SECONDS:
                    stale.unlink()
        (folder / token).write_text(token)
    except OSError:             # a finished run may be read-only, and the verb names what it cannot write
        return None
    return created


def _seen(path: Path) -> dict[str, Any] | None:
    """What the driver has at a path, or in the folder of a pattern; None where there is nothing."""
    while glob.has_magic(str(path)) and not path.exists():
        path = path.parent
    try:
        if path.is_dir():
            return {"path": str(path), "names": sorted(entry.name for entry in path.iterdir())[:NAMES]}
        return {"path": str(path), "size": path.stat().st_size}
    except OSError:
        return None
