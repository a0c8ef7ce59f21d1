"""The Ray cluster that RAY_ADDRESS names, which a verb joins instead of starting one."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

import ray
from ray._private.services import find_bootstrap_address, find_gcs_addresses

from jobs.cluster import SUBMITTED_JOB, named_address, runtime_environment
from jobs.console import say
from jobs.ray_lines import print_without_noise

ANSWER_SECONDS = 40.0       # for a cluster to take in a process
CURE = "Unset RAY_ADDRESS to start a small cluster on this machine, or start one there: ray start --head"
SAME_VERSIONS = "Start the verb with the Python and the Ray of the cluster, or the cluster with those of the verb"
PLACE = re.compile(r"\[?([^\[\]]+)\]?:(\d+)")

dashboard = ""              # host:port of the dashboard and of `ray job submit`, as the cluster names it

# Joins as the verb would: Ray tries for minutes where a cluster hangs, and ends the process in native code.
PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
except Exception as error:
    sys.exit(print(" ".join(str(error).split())) or 1)
"""


def join(address: str, *, environment: Mapping[str, str]) -> None:
    """Join the cluster at an address; "auto" is the one that RAY_ADDRESS names. environment: variables of its workers.

    Raises ConnectionError where there is none.
    """
    if address != "auto" and named_address():
        say(f"using the Ray cluster at {address}, which RAY_ADDRESS={os.environ['RAY_ADDRESS']} names")
    global dashboard
    try:
        context = ray.init(address=address, runtime_env={"env_vars": {**environment, **_place_of(address)}},
                           log_to_driver=True)
    except (ConnectionError, RuntimeError) as error:
        raise ConnectionError(f"RAY_ADDRESS={address}: {_why(error)}") from None
    dashboard = context.dashboard_url or ""
    print_without_noise()


def _why(error: Exception) -> str:
    """Why Ray does not join a cluster, in one line, with the cure. It tells versions that differ in several lines."""
    reason = " ".join(str(error).split())
    if reason.startswith("Version mismatch"):
        return f"{reason}. {SAME_VERSIONS}"
    return f"{str(error).splitlines()[0]}. {CURE}"


def _place_of(address: str) -> dict[str, str]:
    """The variable that names the cluster, for its workers.

    Without it a helper of Ray Train looks for "the" cluster of its machine, and waits in vain where there are several.
    """
    place = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    chosen = runtime_environment().get("env_vars", {})
    return {"RAY_ADDRESS": place} if PLACE.fullmatch(place) and "RAY_ADDRESS" not in chosen else {}


def answering_address(address: str) -> str:
    """The place, as host:port, of a cluster that answers at the value of RAY_ADDRESS; "auto" is one of this machine.

    Raises ConnectionError, with the variable and the cure, within a minute where there is none.
    """
    if "://" in address:
        raise ConnectionError(f"RAY_ADDRESS={address} is an address for `ray job submit`, and this verb was started "
                              f"directly. Submit it (see the README), or {CURE[0].lower()}{CURE[1:]}")
    ends = time.monotonic() + ANSWER_SECONDS
    reasons = {}
    for place in clusters_here() if address == "auto" else [address]:
        reasons[place] = why_not(place, ends - time.monotonic())
        if not reasons[place]:
            return place
    why = "; ".join(f"{place}: {reason}" if address == "auto" else reason for place, reason in reasons.items())
    raise ConnectionError(f"no Ray cluster answers at RAY_ADDRESS={address} ({why or 'none runs on this machine'}). "
                          f"{CURE}")


def place_of_job() -> str:
    """The address to join inside a submitted job, which Ray gives in RAY_ADDRESS.

    Raises ConnectionError where the cluster is gone, or there never was a job: the variables may be left over.
    """
    address = named_address()
    try:
        if address in ("", "auto"):
            return answering_address("auto")
        if reason := why_no_connection(address):
            raise ConnectionError(f"no Ray cluster answers at RAY_ADDRESS={address} ({reason})")
    except ConnectionError as error:
        raise ConnectionError(f"{SUBMITTED_JOB} is set, as in a job of `ray job submit`, but "
                              f"{str(error).removesuffix(f'. {CURE}')}. Outside of a job, unset {SUBMITTED_JOB} and "
                              "RAY_ADDRESS to start a small cluster on this machine") from None
    return "auto"


def clusters_here() -> list[str]:
    """The clusters of this machine: the one that `ray start` noted, which may be gone, then all that run."""
    try:
        noted = find_bootstrap_address(None)
    except (OSError, UnicodeDecodeError):       # a note that cannot be read
        noted = None
    return list(dict.fromkeys(filter(None, [noted, *sorted(find_gcs_addresses())])))


def why_not(place: str, seconds: float) -> str:
    """Why a cluster at host:port cannot be joined within so many seconds; "" where it can."""
    if reason := why_no_connection(place):
        return reason
    try:
        probe = subprocess.run([sys.executable, "-P", "-c", PROBE, place], capture_output=True, text=True,
                               errors="replace", timeout=max(seconds, 1.0), check=False)
    except subprocess.TimeoutExpired:
        return f"it does not answer within {ANSWER_SECONDS:.0f} s"
    return "" if probe.returncode == 0 else probe.stdout.strip()[:400] or "one of its processes does not answer"


def why_no_connection(place: str) -> str:
    """Why nothing at host:port takes a connection; "" where something does."""
    match = PLACE.fullmatch(place)
    if match is None:
        return f"{place!r} is not a host:port such as 127.0.0.1:6379"
    try:
        socket.create_connection((match[1], int(match[2])), timeout=10).close()
    except (OSError, UnicodeError, OverflowError) as error:
        return str(error)
    return ""
