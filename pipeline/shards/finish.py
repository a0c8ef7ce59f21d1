"""The end of making a shard set: the sidecars of its shards, read one after another, become its index and manifest."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import BadInput
from pipeline.faulty_labels import LEFT_OUT, UNREADABLE
from pipeline.files import atomic_write, canonical_json, remove_file
from pipeline.foreign_files import own_json
from pipeline.shards.class_counts import Counts, add_counts, class_rows
from pipeline.shards.encode import UNLABELLED
from pipeline.shards.format import EARLIER_INDEX, ERRORS, INDEX, MANIFEST
from pipeline.shards.index import IndexWriter, index_file, index_path
from pipeline.shards.plan import ShardPlan

SIDECAR_CURE = "Run the same command again: this shard is written anew, and the others are kept."
_COUNTS = ("videos", "clips", "frames", "size")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """The result of make_shards."""

    folder: Path
    fingerprint: str            # of the data set: sha256 of its manifest
    shards: int
    videos: int
    clips: int
    frames: int
    megabytes: float
    skipped: dict[str, int]     # number of videos by reason; errors.jsonl lists them
    remarks: dict[str, int]     # what was left out of the videos, or changed, and how often
    faults: tuple[str, ...] = ()    # one message for each frame without its label or left out; errors.jsonl lists them


def finish(folder: Path, plan: ShardPlan, remarks: Mapping[str, int]) -> ShardReport:
    """Merge the sidecars into errors.jsonl, the index and, last, the manifest. One sidecar is in memory at a time.

    Raises BadInput where more than `max_bad_fraction` of the videos, labels or pictures are bad.
    """
    store.look(folder)      # other machines may have written shards
    gathered = _Gathered(plan, remarks)
    with _index(folder, plan) as index:
        for shard in range(len(plan.shards)):
            sidecar = own_json((folder / plan.name(shard)).with_suffix(".json"), cure=SIDECAR_CURE)
            index.add(sidecar["index"], sha256=sidecar["sha256"])
            gathered.add(sidecar)
        atomic_write(folder / ERRORS, b"".join(canonical_json(row) + b"\n"
                                               for row in (*gathered.skipped, *gathered.faults)))
        gathered.refuse_too_many(folder / ERRORS)
    manifest = canonical_json(gathered.manifest())
    atomic_write(folder / MANIFEST, manifest)
    totals = gathered.totals
    return ShardReport(folder=folder, fingerprint=hashlib.sha256(manifest).hexdigest(), shards=len(plan.shards),
                       videos=totals["videos"], clips=totals["clips"], frames=totals["frames"],
                       megabytes=totals["size"] / 1e6, skipped=gathered.reasons,
                       remarks=gathered.content().get("remarks", {}),
                       faults=tuple(row["message"] for row in gathered.faults))


@contextmanager
def _index(folder: Path, plan: ShardPlan) -> Iterator[IndexWriter]:
    """The writer of the index, in place of that of an earlier version; that of a read-only set stays as it is."""
    if os.access(folder, os.W_OK) or not index_path(folder).exists():
        with index_file(folder / INDEX, plan=plan.digest) as index:
            yield index
        remove_file(folder / EARLIER_INDEX)
    else:
        with open(os.devnull, "wb") as nowhere:
            yield IndexWriter(nowhere, plan=plan.digest)


class _Gathered:
    """What the manifest and errors.jsonl hold of all shards."""

    def __init__(self, plan: ShardPlan, remarks: Mapping[str, int]) -> None:
        self.plan = plan
        self.shards: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self.faults: list[dict[str, str]] = []
        self.remarks = Counter(remarks)
        self.classes: Counts = {}
        self.counted = True             # whether every shard counted its classes; an earlier version did not

    def add(self, sidecar: Mapping[str, Any]) -> None:
        """Add one shard."""
        self.shards.append({name: sidecar[name] for name in ("name", "sha256", *_COUNTS)})
        self.skipped += sidecar["errors"]
        self.faults += sidecar.get("faults", [])
        self.remarks.update(sidecar.get("remarks", {}))
        self.counted &= "classes" in sidecar
        add_counts(self.classes, {class_index: row for class_index, *row in sidecar.get("classes", ())})

    @property
    def totals(self) -> dict[str, int]:
        """The counts of all shards together."""
        return {name: sum(shard[name] for shard in self.shards) for name in _COUNTS}

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> number of videos skipped for it."""
        return dict(Counter(row["reason"] for row in self.skipped))

    def refuse_too_many(self, errors: Path) -> None:
        """Raise BadInput where too many videos are bad; or too many frames, as then the list of classes is wrong, or
        the whole export."""
        most = self.plan.config.max_bad_fraction
        if len(self.skipped) > most * self.plan.videos:
            raise BadInput("bad-videos", f"{len(self.skipped)} of {self.plan.videos} videos are bad, more than "
                           f"shards.max_bad_fraction={most}; {errors} names each with its cure. The first: "
                           f"{self.skipped[0]['message']}")
        frames = self.totals["frames"]
        unreadable = self.remarks[UNREADABLE]
        left_out = self.remarks[LEFT_OUT]
        for kind, bad, count in (("labels", unreadable, frames - self.remarks[UNLABELLED] + unreadable),
                                 ("pictures", left_out, frames + left_out)):
            if bad > most * count:
                raise BadInput(f"bad-{kind}", f"the {kind} of {bad} of {count} frames are missing or cannot be read, "
                               f"more than shards.max_bad_fraction={most}; {errors} names each with its cure. The "
                               f"first fault: {self.faults[0]['message']}")

    def manifest(self) -> dict[str, Any]:
        """The manifest as plain values."""
        plan = self.plan
        return {"schema": plan.schema, "dataset": plan.categories["name"], "split": plan.split,
                "categories": plan.categories, "config": plan.config_json(), "plan": plan.digest,
                "totals": self.totals | {"skipped": self.reasons}, "shards": self.shards, **self.content()}

    def content(self) -> dict[str, Any]:
        """The table of classes, and remarks on the data; nothing where an earlier version wrote shards without
        counting.

        The manifest of such a set then stays the same, and with it the fingerprint that models know.
        """
        if not self.counted:
            return {}
        return {"classes": class_rows(self.plan.categories, self.classes), "remarks": dict(self.remarks)}
