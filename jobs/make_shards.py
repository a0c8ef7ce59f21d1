"""Convert a data set from its official layout into WebDataset tar shards of clips, with Ray Data.

In:     a data set on disk (docs/data.md); a recipe with a synthetic world writes it first.
Out:    a table of the classes of each split, in which a lost or shifted class shows.
        <folder>/shards/<split>, and shards/stills where images train beside the videos (stage_one.stills): tars,
        index.arrow, errors.jsonl, and manifest.json, which is written last and marks a finished set.
Again:  finished shards are skipped; the same recipe gives the same bytes. Bad videos are skipped and counted by
        reason; under --strict the first one stops the verb.
Cost:   about the time that copying and hashing the frames takes.

    python -m jobs.make_shards --recipe tiny
    python -m jobs.make_shards --recipe vipseg_video_kmax_r50_near_online --set dataset.root=/data/VIPSeg --strict
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from jobs.cluster import cluster_cpus, connect
from jobs.console import say
from jobs.made_before import note_sources
from jobs.recipes.schema import Recipe
from jobs.verb import next_command, recorded, run
from pipeline.datasets import open_dataset
from pipeline.datasets.synthetic import write_world
from pipeline.records import Dataset
from pipeline.shards import (
    ShardReport,
    class_table,
    made_together,
    make_shards,
    read_manifest,
    refuse_unlike_classes,
)


def main(recipe: Recipe) -> dict[str, Any]:
    """Shard every split that the recipe uses, and its stills; returns the counts of each."""
    if recipe.world is not None:
        say(f"synthetic world: {write_world(recipe.data_root, recipe.world)}")
    # A missing data set or split stops here, before Ray starts.
    datasets = {name: open_dataset(source) for name, source in recipe.sources.items()}
    refuse_unlike_classes({split: datasets[split].classes for split in recipe.splits})
    connect(recipe.cluster)
    with recorded(recipe, "make_shards") as tracker, made_together(map(recipe.shards_of, datasets)):
        reports = {}
        for split, dataset in datasets.items():
            reports[split] = shard_split(recipe, split, dataset)
            manifest, _ = read_manifest(reports[split].folder)
            tracker.json(f"manifest_{split}.json", manifest)
            tracker.json(f"classes_{split}.json", manifest.get("classes", []))
            tracker.tags({f"shards_{split}": reports[split].fingerprint})
            tracker.numbers(0, {f"{split}/{name}": getattr(reports[split], name)
                                for name in ("videos", "clips", "frames", "megabytes")})
    note_sources(recipe)
    say(next_command(recipe, "make_shards"))
    return {split: json.loads(json.dumps(asdict(report), default=str)) for split, report in reports.items()}


def shard_split(recipe: Recipe, split: str, dataset: Dataset) -> ShardReport:
    """Shard one split, or the stills, and print the counts and the table of classes."""
    workers = 0 if recipe.cluster.in_process else cluster_cpus()
    report = make_shards(dataset, recipe.shards_of(split), recipe.shards, split=split, workers=workers,
                         strict=recipe.strict)
    skipped = f"; skipped {report.skipped}, listed in {report.folder / 'errors.jsonl'}" if report.skipped else ""
    say(f"{split}: {report.videos} videos, {report.clips} clips, {report.frames} frames, {report.megabytes:.1f} MB in "
        f"{report.shards} shards{skipped}")
    if report.remarks:
        say(f"  remarks: {', '.join(f'{times} {what}' for what, times in sorted(report.remarks.items()))}")
    if report.faults:
        say(f"  faulty frame: {report.faults[0]}",
            f"  {report.folder / 'errors.jsonl'} names every faulty frame ({len(report.faults)})")
    if rows := read_manifest(report.folder)[0].get("classes"):
        say(class_table(rows), "")
    return report


if __name__ == "__main__":
    run(main, uses=("tasks",))
