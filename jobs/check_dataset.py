"""Read a data set as make_shards would, write nothing but a few pictures, and say what is in it and what is wrong.

In:     a data set on disk (docs/data.md, docs/own_data.md).
Out:    per split a table of the classes, what was left out, and every video that would be skipped, with its file and
        cure. <folder>/check/<split>: a few frames beside the same frames with their labels.
Again:  everything is read again, and the pictures of the last check are replaced.
Cost:   about that of make_shards, in one process. Every frame is decoded.

    python -m jobs.check_dataset --recipe tiny
    python -m jobs.check_dataset --recipe vipseg_video_kmax_r50_near_online --set dataset.root=/data/VIPSeg
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.console import say
from jobs.counted_classes import number_settings
from jobs.recipes.schema import Recipe
from jobs.verb import next_command, run
from pipeline.at_work import alone_in
from pipeline.datasets import open_dataset
from pipeline.datasets.synthetic import write_world
from pipeline.errors import BadInput
from pipeline.files import atomic_file, remove_folder
from pipeline.outcomes import Outcomes, VideoOutcome
from pipeline.progress import Progress
from pipeline.records import Dataset
from pipeline.shards import class_table, refuse_unlike_classes
from pipeline.shards.allowed import refuse_unfit_classes
from pipeline.shards.class_counts import Counts, add_counts, class_rows
from pipeline.shards.encode import EncodedVideo, encode_video
from pipeline.visualise.stored_labels import labelled_picture

PICTURED_VIDEOS = 4         # of a split
NAMED_FAULTS = 50           # frames of a split whose fault is printed
PICTURED_FRAMES = 2         # of a video: the first that has a label, and one from the middle


def main(recipe: Recipe) -> dict[str, Any]:
    """Check every split that the recipe uses, and its stills.

    Raises the error of a split that cannot be opened, and otherwise BadInput when a video would be skipped; both after
    all splits are checked.
    """
    if recipe.world is not None:
        say(f"synthetic world: {write_world(recipe.data_root, recipe.world)}")
    summary = {}
    errors = []
    tables = {}
    for split, source in recipe.sources.items():
        try:
            dataset = open_dataset(source)
            refuse_unfit_classes(dataset.classes)
            if split in recipe.splits:      # stills may have the table of another data set
                tables[split] = dataset.classes
                refuse_unlike_classes(tables)
            with alone_in(recipe.run_folder / "check", "jobs.check_dataset"):
                summary[split] = check_split(recipe, split, dataset)
        except (BadInput, FileNotFoundError, ValueError) as error:
            say(f"{split}: cannot be read: {error}")
            errors.append(error)
    if errors:
        raise errors[0]
    if bad := {split: found["skipped"] for split, found in summary.items() if found["skipped"]}:
        videos = sum(sum(reasons.values()) for reasons in bad.values())
        raise BadInput("bad-videos", f"{videos} videos have faults, which are listed above: {bad}.",
                       file=recipe.data_root, cure="Correct them; make_shards would leave these videos out.")
    say(next_command(recipe, "check_dataset"))
    return summary


def check_split(recipe: Recipe, split: str, dataset: Dataset) -> dict[str, Any]:
    """Read every video of a split and print the findings; returns the counts."""
    videos = dataset.video_ids()
    if not videos:
        raise ValueError(f"split {split!r} of {dataset.classes.name!r} lists no videos; check the list of the split")
    settings = replace(recipe.shards, decoded_frames=sys.maxsize)
    pictures = recipe.run_folder / "check" / split
    remove_folder(pictures)
    counts: Counts = {}
    remarks = Counter(dataset.remarks)
    faults = []
    with Progress(f"checking {split}", len(videos)) as progress:
        outcomes = Outcomes(progress)
        for name in videos:
            try:
                video = encode_video(dataset, name, settings)
            except BadInput as error:
                if recipe.strict:
                    raise
                outcomes.add([VideoOutcome.skip(name, error)])
                continue
            faults += video.faults.values()
            if recipe.strict and faults:
                raise faults[0]
            add_counts(counts, video.classes)
            remarks.update(video.remarks)
            if len(outcomes.done) < PICTURED_VIDEOS:
                draw(video, dataset, pictures)
            outcomes.add([VideoOutcome(video=name, frames=sum(clip.meta["num_frames"] for clip in video.clips))])
    drawn = len(list(pictures.glob("*.jpg"))) if pictures.is_dir() else 0
    say(f"{split}: {len(outcomes.done)} videos, {outcomes.frames} frames",
        *(f"  {times} {text}" for text, times in sorted(remarks.items())),
        class_table(class_rows(dataset.classes.to_json(), counts)),
        *(f"wrong: {outcome.skipped.message}" for outcome in outcomes.skipped),
        *(f"faulty frame: {fault}" for fault in faults[:NAMED_FAULTS]),
        *([f"{len(faults)} frames have such faults"] if len(faults) > NAMED_FAULTS else []),
        *other_classes(recipe, dataset),
        f"{drawn} pictures in {pictures}" if drawn else "no labelled frame to draw", "")
    return {"videos": len(outcomes.done), "frames": outcomes.frames, "classes": len(dataset.classes),
            "skipped": outcomes.reasons, "remarks": dict(remarks), "pictures": str(pictures) if drawn else None}


def other_classes(recipe: Recipe, dataset: Dataset) -> list[str]:
    """A line where the networks of the recipe have another number of classes than the data."""
    classes = len(dataset.classes)
    if recipe.count_classes or recipe.stage_one.segmenter.num_classes == classes:
        return []
    return [f"the recipe has {recipe.stage_one.segmenter.num_classes} classes, the data {classes}: --set "
            f"count_classes=true takes those of the data ({', '.join(number_settings(recipe))})"]


def draw(video: EncodedVideo, dataset: Dataset, folder: Path) -> None:
    """Write a few labelled frames of a video."""
    labelled = [(clip.meta, index, dict(clip.members)) for clip in video.clips
                for index in range(clip.meta["num_frames"]) if f"f{index:03d}.png" in dict(clip.members)]
    for place in sorted({0, len(labelled) // 2})[:PICTURED_FRAMES] if labelled else ():
        meta, index, members = labelled[place]
        picture = labelled_picture(members[f"f{index:03d}.jpg"], members[f"f{index:03d}.png"], meta, dataset.classes)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / f"{len(list(folder.iterdir())):02d}_{meta['video_id'][:80]}.jpg") as file:
            Image.fromarray(picture).save(file, "JPEG")


if __name__ == "__main__":
    run(main)
