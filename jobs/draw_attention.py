"""Draw what a finished model attends to around one point of a video: its trajectory, other clips, and links.

In:     predict.input, one video; the point, in pixels of its frames, and the frame. The finished models of the recipe:
        predict.mode and inference.association decide which take part.
Out:    <folder>/attention/<video>: trajectory.png (the clip; below it the height pass, the width pass and the joined
        track), clips.png (attention of the object at the point to each clip, and the probability of links with it), and
        attention.json with the numbers.
Again:  drawn anew.
Cost:   one pass of inference over the video.

    python -m jobs.draw_attention --recipe demo --set predict.input=my_video.mp4 --point 48,40
    python -m jobs.draw_attention --recipe demo --set predict.input=my_video.mp4 --point 48,40 --frame 6 --stride 32
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.console import say
from jobs.models import open_system
from jobs.predict import with_mode
from jobs.recipes.schema import Recipe
from jobs.verb import CommandLine, run
from pipeline.attended import Attended, attended
from pipeline.clips import VideoSource
from pipeline.datasets.own_videos import find_videos
from pipeline.datasets.raw_video import open_video
from pipeline.files import atomic_write
from pipeline.images import encode_png
from pipeline.visualise.trajectory import drawn_track


@dataclass(frozen=True, kw_only=True)
class AttentionLine(CommandLine):
    """The flags of this verb."""

    point: str = ""             # x,y in pixels of a frame of the video
    frame: int = 0              # of the video, from 0 on
    stride: int | None = None   # of the map in which the point is followed; by default the finest


def main(recipe: Recipe, flags: AttentionLine) -> dict[str, Any]:
    """Draw one video; returns where the pictures lie, and the numbers in them."""
    point = read_point(flags.point)
    given = find_videos(recipe.predict.input, taken={})
    if len(given.videos) != 1:
        raise ValueError(f"predict.input={recipe.predict.input} holds {len(given.videos)} videos; name one, since the "
                         "point belongs to it")
    recipe = with_mode(recipe)
    source = open_video(given.videos[0].path)
    if left_out := getattr(source, "left_out", ""):
        say(f"left out: {left_out}")
    result = attended(open_system(recipe, recipe.predict_mode), source, point=point, frame=flags.frame,
                      stride=flags.stride)
    folder = recipe.run_folder / "attention" / given.videos[0].name
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {"point": point, "frame": flags.frame, "clip": result.clip, "query": result.query,
               "first_frame_of_clip": result.first_frame, "clips": result.clips, "links": result.links,
               "track": None if result.track is None else result.track.points()}
    atomic_write(folder / "attention.json", json.dumps(numbers, indent=1).encode())
    files = list(draw(result, source, point, folder))
    if result.track is None:
        say("the segmenter has no trajectory attention, so there is no trajectory to draw")
    say(f"attention around {point[0]:g},{point[1]:g}: {', '.join(map(str, files)) or 'nothing to draw'}")
    return {"folder": str(folder), **numbers}


def read_point(text: str) -> tuple[float, float]:
    """x and y. Raises ValueError for anything else."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"--point {text!r} must be x,y in pixels of a frame, such as --point 120,80") from None
    return x, y


def draw(result: Attended, source: VideoSource, point: tuple[float, float], folder: Path) -> list[Path]:
    """Write the pictures that there is something for; returns their paths."""
    files = []
    if result.track is not None:
        count = min(len(result.track.joined), len(source.frame_names) - result.first_frame)
        frames = source.frames(result.first_frame, result.first_frame + count)
        picture = drawn_track(result.track, frames, point)
        atomic_write(folder / "trajectory.png", encode_png(picture))
        files.append(folder / "trajectory.png")
    bars = {"attention of the cross-clip head": result.clips, "probability of a link": result.links}
    bars = {title: values for title, values in bars.items() if values is not None}
    if bars:
        draw_bars(bars, result.clip, folder / "clips.png")
        files.append(folder / "clips.png")
    return files


def draw_bars(bars: dict[str, list[float]], clip: int, path: Path) -> None:
    """A row of bars for each title, one bar a clip; that of the point is marked."""
    from matplotlib.figure import Figure  # seconds to import, and needed once

    figure = Figure(figsize=(6, 2 * len(bars)), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(len(bars), squeeze=False)[:, 0], bars.items()):
        axes.bar(range(len(values)), values, color=["#d55e00" if k == clip else "#0072b2" for k in range(len(values))])
        axes.set_title(f"{title}; the clip of the point is orange", fontsize=9)
        axes.set_xlabel("clip")
        axes.set_ylim(0, max(1e-3, 1.05 * max(values)))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run(main, default_recipe="demo", flags=AttentionLine)
