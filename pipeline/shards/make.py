"""Makes a shard set of a data set: plan, missing shards, index, manifest. Running it again repairs a set."""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

from pipeline.at_work import alone_in
from pipeline.errors import BadInput
from pipeline.files import atomic_write, canonical_json, remove_file
from pipeline.foreign_files import own_json, whole_json
from pipeline.outcomes import Outcomes
from pipeline.progress import Progress
from pipeline.records import Dataset
from pipeline.shards.allowed import refuse_unfit_classes
from pipeline.shards.finish import ShardReport, finish
from pipeline.shards.format import MANIFEST, PLAN, SCHEMAS
from pipeline.shards.plan import ShardConfig, ShardPlan, plan_shards
from pipeline.shards.writer import make_shard, shard_outcomes

log = logging.getLogger(__name__)


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
            outcomes = Outcomes(progress, counts_only=True)
            for facts in _write_shards(dataset, folder, plan, workers=workers, strict=strict):
                outcomes.add(shard_outcomes(facts))
        return finish(folder, plan, dataset.remarks)
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
    sizes of a later one. The first division into shards stays, and so does the schema of an earlier version, since
    models know the fingerprint of the set.
    """
    plan = replace(plan, schema=_schema_of(folder, plan))
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


def _schema_of(folder: Path, plan: ShardPlan) -> int:
    """The schema of the first file in a folder that tells one which this version writes; that of the plan without any.

    The plan or the manifest may have been deleted, as the messages on damaged ones advise.
    """
    sidecars = folder.glob(f"{glob.escape(plan.split)}-*.json")
    for path in (folder / PLAN, folder / MANIFEST, *sidecars):
        facts = whole_json(path, needs={"schema": int})
        if facts is not None and facts["schema"] in SCHEMAS:
            return facts["schema"]
    return plan.schema


def _sweep_others(folder: Path, plan: ShardPlan) -> None:
    """Delete the shards of a failed start that had more of them than this plan."""
    names = {plan.name(shard) for shard in range(len(plan.shards))}
    for path in folder.glob(f"{glob.escape(plan.split)}-*.tar"):
        if path.name not in names:
            remove_file(path.with_suffix(".json"))
            remove_file(path)
