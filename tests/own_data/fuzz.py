"""A hypothesis fuzz of every reader of a json: whatever the file holds, only BadInput is raised, and memory is bounded.

    python -m tests.own_data.fuzz --examples 20000
    python -m tests.own_data.fuzz --examples 60000 --readers labelme davis "cvat coco"

The tests beside this file run a few hundred examples.
"""

from __future__ import annotations

import copy
import json
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import tyro
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput
from pipeline.shards import ShardConfig
from pipeline.shards.allowed import refuse_unfit_classes
from pipeline.shards.encode import encode_video
from tests.own_data.exports import EXPORTS, Exported
from tests.own_data.worlds import SOURCES, Source, save

READERS = {**SOURCES, **EXPORTS}
MEGABYTES = 300         # that the process may grow by in one run of the fuzz
ADDRESS_SPACE = 6 * 2**30

AWKWARD = [None, True, False, 0, -1, 1, 2, 3.0, 1.5, 1e300, -1e300, float("nan"), float("inf"), 10**9, 2**31, 2**63,
           10**40, "", " ", "1", "-1", "x", "a/b", "..", "/etc", "a\\b", "\0", "\ud800", "ä" * 300, [], {}, [[]], [{}],
           [1, 2, 3], [[1, 2, 3, 4, 5, 6]], [[0, 0, 1e9, 0, 1e9, 1e9]], [[0, 0], [9, 0], [9, 9]], {"id": 1},
           {"size": [48, 64], "counts": [3072]}, {"size": [48, 64], "counts": "PPPPPPPPPPPPPPP"},
           {"size": [10**6, 10**6], "counts": [10**12]}, {"size": [48.0, "64"], "counts": [0, 3072]}]

nested = st.recursive(
    st.integers(-2, 70) | st.floats(width=16) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "size", "counts"]), inner,
                                                                max_size=3), max_leaves=8)
values = st.one_of(st.sampled_from(AWKWARD), st.integers(), st.floats(), st.text(max_size=5), nested)
kinds = st.sampled_from(["set", "drop", "twice", "add", "text"])
changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), kinds, values), min_size=1, max_size=4)


def places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """The path of every value inside a json, of lists only the first three: most values are numbers of run lengths."""
    children = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, child in children:
        yield (*at, key)
        yield from places(child, (*at, key))


def changed(content: Any, edits: list[tuple[float, str, Any]]) -> Any:
    """A copy of a json with some values set, dropped, doubled, turned into texts, or put beside others."""
    content = copy.deepcopy(content)
    for where, kind, awkward in edits:
        value = copy.deepcopy(awkward)      # a later change may go into it
        paths = list(places(content))
        if not paths:
            return value
        *parents, key = paths[int(where * len(paths))]
        holder = content
        for parent in parents:
            holder = holder[parent]
        match kind:
            case "set":
                holder[key] = value
            case "drop":
                del holder[key]
            case "text":
                holder[key] = str(holder[key])
            case "twice" if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            case "add" if isinstance(holder, dict):
                holder["extra"] = value
    return content


def read_everything(source: Source | Exported, root: Path) -> None:
    """All that making shards reads; BadInput is the one error that a file may cause."""
    with suppress(BadInput):
        dataset = source.open(root)
        refuse_unfit_classes(dataset.classes)
        assert all(count > 0 for count in dataset.remarks.values())
        for video in dataset.video_ids():
            with suppress(BadInput):
                encode_video(dataset, video, ShardConfig())


def fuzz(source: Source | Exported, examples: int, root: Path) -> int:
    """Read `examples` changed jsons of one reader; returns the megabytes by which the process grew."""
    path = source.write(root) / source.json
    content = json.loads(path.read_text())
    before = peak()

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))
    @given(changes)
    def run(edits: list[tuple[float, str, Any]]) -> None:
        save(path, changed(content, edits))
        read_everything(source, root)

    run()
    return peak() - before


def peak() -> int:
    """The most memory that this process has held, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(examples: int = 20_000, readers: tuple[str, ...] = tuple(READERS)) -> None:
    """Fuzz readers of a json.

    Args:
        examples: changed files; the readers share them equally.
        readers: names as the output lists them.
    """
    each = -(-examples // len(readers))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))      # a MemoryError shows where it went
    for name in readers:
        with tempfile.TemporaryDirectory() as folder:
            grown = fuzz(READERS[name], each, Path(folder) / "world")
        print(f"{name}: {each} examples, only named errors, {grown} MB more memory", flush=True)
        if grown > MEGABYTES:
            sys.exit(f"{name}: memory is not bounded")


if __name__ == "__main__":
    tyro.cli(main)
