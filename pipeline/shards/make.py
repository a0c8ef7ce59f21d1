"""Data set -> shard set: plan, write what is missing, then index and manifest. Running it again is the repair."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.files import atomic_write, canonical_json, sweep_partials
from pipeline.progress import Progress
from pipeline.records import Dataset
from pipeline.shards.format import ERRORS, INDEX, MANIFEST, PLAN, SCHEMA
from pipeline.shards.index import save_index
from pipeline.shards.plan import ShardConfig, ShardPlan, plan_shards
from pipeline.shards.writer import make_shard

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What a run of make_shards left behind."""

    folder: Path
    fingerprint: str            # of the data set: sha256 of its manifest
    shards: int
    videos: int
    clips: int
    frames: int
    megabytes: float
    skipped: dict[str, int]     # videos by reason; errors.jsonl names them


def make_shards(dataset: Dataset, folder: Path | str, config: ShardConfig | None = None, *, split: str,
                workers: int = 0, strict: bool = False) -> ShardReport:
    """Write one split of a data set as a shard set into `folder`, or finish what an earlier run began there.

    workers: Ray tasks at a time; 0 works in this process, without Ray. One run per folder at a time.
    Raises ValueError where the folder holds shards of another plan, or more than `max_bad_fraction` of the videos are
    bad; under strict BadInput at the first bad one; OSError when a shard cannot be written.
    """
    folder = Path(folder)
    config = config or ShardConfig()
    plan = plan_shards(dataset, config, split=split)
    folder.mkdir(parents=True, exist_ok=True)
    plan = _claim(folder, plan)
    if swept := sweep_partials(folder):
        log.info("removed %d unfinished files of an earlier run", swept)
    log.info("%d videos of %s %s into %d shards in %s", plan.videos, dataset.classes.name, split, len(plan.shards),
             folder)
    with Progress("sharding", plan.videos) as progress:
        for shard in _made(dataset, folder, plan, workers=workers, strict=strict):
            progress.update(shard["videos"], shard["skipped"])
    return _finish(folder, plan)


def _made(dataset: Dataset, folder: Path, plan: ShardPlan, *, workers: int, strict: bool) -> Iterator[dict]:
    """What became of each shard, in any order."""
    if workers == 0:
        return (make_shard(dataset, folder, plan, shard, strict=strict) for shard in range(len(plan.shards)))
    from pipeline.streams import shard_stream  # Ray takes seconds to import, and this room works without it

    return shard_stream(dataset, folder.absolute(), plan, workers=workers, strict=strict)


def _claim(folder: Path, plan: ShardPlan) -> ShardPlan:
    """The first file written says whose folder it is; refuse to mix two plans in it.

    The same videos cut otherwise are no other plan: files that were missing in the first run count when sizes are
    looked up again. The first cut stays.
    """
    content = canonical_json(plan.to_json())
    try:
        found = json.loads((folder / PLAN).read_bytes())
    except FileNotFoundError:
        atomic_write(folder / PLAN, content)
        return plan
    except ValueError as error:
        raise BadInput("damaged-shard", f"cannot be read ({error}).", file=folder / PLAN,
                       cure="Delete it and run the same command again: finished shards are kept.") from error
    wanted = json.loads(content)
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if set(differing) <= {"shards"} and list(chain(*found["shards"])) == list(chain(*wanted["shards"])):
        return replace(plan, shards=tuple(map(tuple, found["shards"])))
    settings = [f"{name}: {found['config'].get(name)!r} there, {value!r} now"
                for name, value in wanted["config"].items() if found.get("config", {}).get(name) != value]
    raise ValueError(f"{folder} holds shards of another plan; differing: {', '.join(differing)}"
                     f"{' (' + '; '.join(settings) + ')' if settings else ''}. "
                     "Choose another folder, or delete this one.")


def _finish(folder: Path, plan: ShardPlan) -> ShardReport:
    """Merge the sidecars: errors, index, and the manifest last."""
    sidecars = [json.loads((folder / plan.name(shard)).with_suffix(".json").read_bytes())
                for shard in range(len(plan.shards))]
    errors = [error for sidecar in sidecars for error in sidecar["errors"]]
    atomic_write(folder / ERRORS, b"".join(canonical_json(error) + b"\n" for error in errors))
    if len(errors) > plan.config.max_bad_fraction * plan.videos:
        raise ValueError(f"{len(errors)} of {plan.videos} videos are bad, more than max_bad_fraction="
                         f"{plan.config.max_bad_fraction}; {folder / ERRORS} names each with its cure. The first: "
                         f"{errors[0]['message']}")
    save_index(folder / INDEX, (row for sidecar in sidecars for row in sidecar["index"]), plan=plan.digest)
    totals = {name: sum(sidecar[name] for sidecar in sidecars) for name in ("videos", "clips", "frames", "size")}
    skipped = dict(Counter(error["reason"] for error in errors))
    plain = plan.to_json()
    manifest = canonical_json({
        "schema": SCHEMA, "dataset": plan.categories["name"], "split": plan.split, "categories": plan.categories,
        "config": plain["config"], "plan": plan.digest, "totals": totals | {"skipped": skipped},
        "shards": [{name: sidecar[name] for name in ("name", "size", "sha256", "videos", "clips", "frames")}
                   for sidecar in sidecars]})
    atomic_write(folder / MANIFEST, manifest)
    return ShardReport(folder=folder, fingerprint=hashlib.sha256(manifest).hexdigest(), shards=len(sidecars),
                       videos=totals["videos"], clips=totals["clips"], frames=totals["frames"],
                       megabytes=totals["size"] / 1e6, skipped=skipped)
