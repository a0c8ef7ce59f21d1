"""Makes a shard set of a data set: plan, missing shards, index, manifest. Running it again repairs a set."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.at_work import alone_in
from pipeline.errors import BadInput
from pipeline.files import atomic_write, canonical_json, remove_file
from pipeline.foreign_files import own_json
from pipeline.outcomes import Outcomes
from pipeline.progress import Progress
from pipeline.records import Dataset
from pipeline.shards.allowed import refuse_unfit_classes
from pipeline.shards.class_counts import Counts, add_counts, class_rows
from pipeline.shards.encode import UNLABELLED
from pipeline.shards.format import ERRORS, INDEX, MANIFEST, PLAN, SCHEMA
from pipeline.shards.index import save_index, tars_digest
from pipeline.shards.plan import ShardConfig, ShardPlan, plan_shards
from pipeline.shards.writer import make_shard, shard_outcomes

SIDECAR_CURE = "Run the same command again: this shard is written anew, and the others are kept."

log = logging.getLogger(__name__)


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
    faults: tuple[str, ...] = ()    # one message for each frame whose label cannot be read; errors.jsonl lists them


def make_shards(dataset: Dataset, folder: Path | str, config: ShardConfig | None = None, *, split: str,
                workers: int = 0, strict: bool = False) -> ShardReport:
    """Write one split of a data set as a shard set into `folder`, or complete one that an earlier run began.

    workers: Ray tasks at a time; with 0 this process does the work, without Ray. Another process that is at work in the
    folder is waited for.
    Raises ValueError where the folder holds shards of another plan, BadInput where more than `max_bad_fraction` of the
    videos or labels are bad, at the first bad one under `strict`, and for classes that no verb can write
    (`allowed.py`), and OSError when a shard cannot be written.
    """
    folder = Path(folder)
    config = config or ShardConfig()
    refuse_unfit_classes(dataset.classes)
    plan = plan_shards(dataset, config, split=split)
    with alone_in(folder, "make_shards"):
        return _made(dataset, folder, _claim(folder, plan), workers=workers, strict=strict)


@contextmanager
def made_together(folders: Iterable[Path]) -> Iterator[None]:
    """For the sets of one data set: where one cannot be made, those that were begun with it do not refuse other data.

    Corrected data may have other videos and classes. Finished shards stay, and are kept where the plan is the same.
    """
    new = [folder for folder in folders if not (folder / MANIFEST).exists()]
    try:
        yield
    except ValueError:      # of data or settings; a full disk leaves what is finished as it is
        for folder in new:
            remove_file(folder / MANIFEST)
            remove_file(folder / PLAN)
        raise


def _made(dataset: Dataset, folder: Path, plan: ShardPlan, *, workers: int, strict: bool) -> ShardReport:
    log.info("%d videos of %s %s into %d shards in %s", plan.videos, dataset.classes.name, plan.split,
             len(plan.shards), folder)
    try:
        with Progress("sharding", plan.videos) as progress:
            outcomes = Outcomes(progress)
            for facts in _write_shards(dataset, folder, plan, workers=workers, strict=strict):
                outcomes.add(shard_outcomes(facts))
        return _finish(folder, plan, dataset.remarks)
    except BadInput:
        # Corrected data may have other videos and classes, which the plan of a set that never was must not refuse.
        if not (folder / MANIFEST).exists():
            remove_file(folder / PLAN)
        raise


def _write_shards(dataset: Dataset, folder: Path, plan: ShardPlan, *, workers: int,
                     strict: bool) -> Iterator[dict]:
    """Write the missing shards; yields the sidecar of every shard, in any order."""
    if workers == 0:
        return (make_shard(dataset, folder, plan, shard, strict=strict) for shard in range(len(plan.shards)))
    from pipeline.streams import shard_stream  # Ray takes seconds to import, and the folder works without it

    return shard_stream(dataset, folder.absolute(), plan, workers=workers, strict=strict)


def _claim(folder: Path, plan: ShardPlan) -> ShardPlan:
    """Write the plan as the first file of a folder, or check it against the plan that is there; returns the valid one.

    The same videos in other shards are the same plan: files that were missing in the first run change the estimated
    sizes of a later one. The first division into shards stays.
    """
    content = canonical_json(plan.to_json())
    try:
        stored = own_json(folder / PLAN, needs={"shards": list, "config": dict},
                          cure="Delete it and run the same command again: finished shards are kept.")
    except FileNotFoundError:
        _sweep_others(folder, plan)
        atomic_write(folder / PLAN, content)
        return plan
    wanted = json.loads(content)
    differing = [name for name in wanted if stored.get(name) != wanted[name]]
    if set(differing) <= {"shards"} and list(chain(*stored["shards"])) == list(chain(*wanted["shards"])):
        return replace(plan, shards=tuple(map(tuple, stored["shards"])))
    settings = [f"{name}: {stored['config'].get(name)!r} there, {value!r} now"
                for name, value in wanted["config"].items() if stored.get("config", {}).get(name) != value]
    raise ValueError(f"{folder} holds shards of another plan, which differs in {', '.join(differing)}"
                     f"{' (' + '; '.join(settings) + ')' if settings else ''}. "
                     "Choose another folder, or delete this one.")


def _sweep_others(folder: Path, plan: ShardPlan) -> None:
    """Delete the shards of a failed start that had more of them than this plan."""
    names = {plan.name(shard) for shard in range(len(plan.shards))}
    for path in folder.glob(f"{glob.escape(plan.split)}-*.tar"):
        if path.name not in names:
            remove_file(path.with_suffix(".json"))
            path.unlink()


def _finish(folder: Path, plan: ShardPlan, remarks: Mapping[str, int]) -> ShardReport:
    """Merge the sidecars into errors.jsonl, the index and, last, the manifest."""
    sidecars = [own_json((folder / plan.name(shard)).with_suffix(".json"), cure=SIDECAR_CURE)
                for shard in range(len(plan.shards))]
    outcomes = Outcomes()
    for sidecar in sidecars:
        outcomes.add(shard_outcomes(sidecar))
    skipped = outcomes.skipped
    rows = [*outcomes.skipped_rows(), *(row for sidecar in sidecars for row in sidecar.get("faults", []))]
    atomic_write(folder / ERRORS, b"".join(canonical_json(row) + b"\n" for row in rows))
    if len(skipped) > plan.config.max_bad_fraction * plan.videos:
        raise BadInput("bad-videos", f"{len(skipped)} of {plan.videos} videos are bad, more than "
                       f"shards.max_bad_fraction={plan.config.max_bad_fraction}; {folder / ERRORS} names each with its "
                       f"cure. The first: {skipped[0].skipped.message}")
    _refuse_faulty(rows[len(skipped):], sidecars, plan, folder)
    save_index(folder / INDEX, (row for sidecar in sidecars for row in sidecar["index"]), plan=plan.digest,
               tars=tars_digest(sidecars))
    totals = {name: sum(sidecar[name] for sidecar in sidecars) for name in ("videos", "clips", "frames", "size")}
    plain = plan.to_json()
    content = _content(sidecars, plan, remarks)
    manifest = canonical_json({
        "schema": SCHEMA, "dataset": plan.categories["name"], "split": plan.split, "categories": plan.categories,
        "config": plain["config"], "plan": plan.digest, "totals": totals | {"skipped": outcomes.reasons},
        "shards": [{name: sidecar[name] for name in ("name", "size", "sha256", "videos", "clips", "frames")}
                   for sidecar in sidecars], **content})
    atomic_write(folder / MANIFEST, manifest)
    return ShardReport(folder=folder, fingerprint=hashlib.sha256(manifest).hexdigest(), shards=len(sidecars),
                       videos=totals["videos"], clips=totals["clips"], frames=totals["frames"],
                       megabytes=totals["size"] / 1e6, skipped=outcomes.reasons, remarks=content.get("remarks", {}),
                       faults=tuple(row["message"] for row in rows[len(skipped):]))


def _refuse_faulty(faults: list[dict], sidecars: list[dict], plan: ShardPlan, folder: Path) -> None:
    """Raise BadInput where too many labels cannot be read: the list of classes is then wrong, or the whole export."""
    unlabelled = sum(sidecar.get("remarks", {}).get(UNLABELLED, 0) for sidecar in sidecars)
    labels = sum(sidecar["frames"] for sidecar in sidecars) - unlabelled + len(faults)
    if len(faults) > plan.config.max_bad_fraction * labels:
        raise BadInput("bad-labels", f"the labels of {len(faults)} of {labels} labelled frames cannot be read, more "
                       f"than shards.max_bad_fraction={plan.config.max_bad_fraction}; {folder / ERRORS} names each "
                       f"with its cure. The first: {faults[0]['message']}")


def _content(sidecars: list[dict], plan: ShardPlan, remarks: Mapping[str, int]) -> dict[str, Any]:
    """The table of classes, and remarks on the data; nothing where an earlier version wrote shards without counting.

    The manifest of such a set then stays the same, and with it the fingerprint that models know.
    """
    if not all("classes" in sidecar for sidecar in sidecars):
        return {}
    counts: Counts = {}
    total = Counter(remarks)
    for sidecar in sidecars:
        add_counts(counts, {class_index: row for class_index, *row in sidecar["classes"]})
        total.update(sidecar["remarks"])
    return {"classes": class_rows(plan.categories, counts), "remarks": dict(total)}
