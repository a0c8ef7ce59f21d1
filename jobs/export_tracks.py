"""Write finished predictions in the files of other tools.

In:     the folder that jobs.predict wrote: predict.output, by default <folder>/predictions.
Out:    <that folder>/exports, of --format
            coco_video    coco_video.json, a json as YouTube-VIS has it
            cvat          cvat/<video>.xml, which CVAT imports as "CVAT for video 1.1"
            fiftyone      fiftyone/, a data set that FiftyOne loads as FiftyOneVideoLabelsDataset
            parquet       tracks.parquet, a table with a row for each track
            rerun         rerun/<video>.rrd for the viewer of Rerun; needs rerun-sdk
Again:  the files are written anew.
Cost:   some seconds; no network runs.

    python -m jobs.export_tracks --recipe demo --format cvat
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.console import say
from jobs.predict import output_folder
from jobs.recipes.schema import Recipe
from jobs.verb import CommandLine, run
from pipeline.exports import EXPORTS, ExportName, tracked_videos


@dataclass(frozen=True, kw_only=True)
class ExportLine(CommandLine):
    """The flags of this verb."""

    format: ExportName = "parquet"      # the tool that reads the files


def main(recipe: Recipe, flags: ExportLine) -> dict[str, Any]:
    """Write one format; returns the files. Raises FileNotFoundError without finished predictions."""
    folder = output_folder(recipe) / "exports"
    folder.mkdir(parents=True, exist_ok=True)
    files = EXPORTS[flags.format](tracked_videos(output_folder(recipe)), folder)
    say(f"{len(files)} files of the format {flags.format} in {folder}")
    return {"format": flags.format, "files": [str(file) for file in files]}


if __name__ == "__main__":
    run(main, flags=ExportLine, default_recipe="demo")
