"""The estimate as lines for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from jobs.estimating.schedule import Cluster, largest_useful
from jobs.estimating.unit_costs import Training, UnitCosts
from jobs.estimating.verbs import Planned

PIECES = {"start": "process", "draw": "frame", "shard": "frame", "decode": "training clip",
          "step": "training clip", "clip": "clip", "cache": "clip", "head": "window", "links": "window",
          "score": "frame", "offline": "frame"}


def estimated(verbs: list[Planned], cluster: Cluster) -> list[dict[str, Any]]:
    """A row for each verb: seconds, bytes and memory of a machine, and where further machines stop helping."""
    rows = []
    for planned in verbs:
        here = cluster if planned.on_gpu else replace(cluster, gpus=0)
        machines, limit = largest_useful(planned.work, here)
        processes = min(here.processors, planned.work.most_processes)
        rows.append({"verb": planned.verb, "seconds": planned.work.time(here), "written": planned.written,
                     "memory_gib": processes * planned.memory, "machines": machines, "limit": limit,
                     "seconds_then": planned.work.time(replace(here, machines=machines))})
    return rows


def cost_lines(costs: UnitCosts) -> Iterator[str]:
    """What was measured."""
    part = costs.growth.part
    yield "measured on one core" + (f", in a rehearsal with sides divided by {part}:" if part > 1 else ":")
    shown = {name: cost for name in PIECES if (cost := getattr(costs, name)) is not None}
    seconds = {name: (cost.sample if isinstance(cost, Training) else cost).seconds for name, cost in shown.items()}
    yield "  " + ", ".join(f"{name} {seconds_in_words(value)} a {PIECES[name]}" for name, value in seconds.items())


def table_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each verb."""
    yield (f"{'verb':<22} {'time':>8} {'writes':>8} {'memory':>8}   {'most machines':>13} {'then':>8}   "
           "because of")
    for row in rows:
        yield (f"{row['verb']:<22} {time_in_words(row['seconds']):>8} {bytes_in_words(row['written']):>8} "
               f"{row['memory_gib']:>4.1f} GiB   {row['machines']:>13} {time_in_words(row['seconds_then']):>8}   "
               f"{row['limit']}")


def time_in_words(seconds: float) -> str:
    """Seconds, minutes, hours or days."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def seconds_in_words(seconds: float) -> str:
    """Seconds or milliseconds."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def bytes_in_words(count: float) -> str:
    """Kilobytes to terabytes."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.3g} kB"
