"""Segment and track videos of one's own: an mp4 (or a folder of frames, or a folder of videos) in, results out.

In:     predict.input, and the finished models (predict.mode = near_online, offline).
Out:    predict.output: overlays/<video>.mp4, and the results in predict.formats: vipseg (panoptic PNGs with pred.json),
        youtube_vis (tracks.json: one entry per object, COCO run lengths per frame), vspw, kitti_step.
Again:  every video is predicted again; results of another model are never mixed in. A broken file is named, counted and
        skipped.
Cost:   one pass of inference; memory does not grow with the length of the video.

    python -m jobs.predict --recipe demo --set predict.input=my_video.mp4
    python -m jobs.predict --recipe demo --set predict.input=/data/videos --set predict.mode=near_online
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.cluster import connect, results_of
from jobs.console import say
from jobs.models import open_system
from jobs.recipes.schema import Recipe
from jobs.verb import recorded, run
from pipeline.datasets.raw_video import open_video
from pipeline.errors import BadInput
from pipeline.outcomes import Outcomes, VideoOutcome
from pipeline.predictions import PredictionWriter
from pipeline.progress import Progress
from pipeline.system import System
from pipeline.visualise.drawing import draw
from pipeline.visualise.painted import pictured

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg", ".3gp")


def main(recipe: Recipe) -> dict[str, Any]:
    """Predict every video of the input; returns where each result lies and what was skipped."""
    videos = find_videos(recipe.predict.input)
    output = output_folder(recipe)
    writer = prediction_writer(recipe, open_system(recipe, recipe.predict_mode))   # a missing model stops here
    connect(recipe.cluster)
    tags = {"mode": recipe.predict_mode, "segmenter": writer.made_by["segmenter_sha256"]}
    with recorded(recipe, "predict", **tags) as tracker, Progress("predicting", len(videos)) as progress:
        outcomes = Outcomes(progress)
        rows = [{"path": str(path)} for path in videos]
        for row in results_of(PredictVideo, rows, arguments={"recipe": recipe}, cluster=recipe.cluster):
            outcomes.add([PredictedVideo.from_json(row)])
        done = outcomes.done
        tracker.numbers(0, {"videos": len(done), "frames": outcomes.frames, "skipped": len(outcomes.skipped)})
        if done:
            writer.finish(video.video for video in done)
            tracker.file(Path(done[0].overlay), "overlays")
    say(*outcomes.skipped_lines(), f"{len(done)} videos in {output}")
    outcomes.refuse_nothing_done(recipe.predict.input)
    return {"output": str(output), "videos": [video.to_json() for video in done], "skipped": outcomes.skipped_rows()}


def output_folder(recipe: Recipe) -> Path:
    """Where the results go."""
    return Path(recipe.predict.output) if recipe.predict.output else recipe.run_folder / "predictions"


def prediction_writer(recipe: Recipe, system: System) -> PredictionWriter:
    """Writes into the output folder. Raises ValueError when it holds the results of another model."""
    return PredictionWriter(folder=output_folder(recipe), classes=system.classes,
                            made_by=system.made_by, formats=recipe.predict.formats)


def find_videos(given: str) -> list[Path]:
    """A video file, a folder of frames, or every video and frame folder in a folder.

    Raises FileNotFoundError where there is none, ValueError where two would have the same name.
    """
    path = Path(given).absolute() if given else None
    if path is None or not path.exists():
        raise FileNotFoundError(f"predict.input={given!r} does not exist; give a video file, a folder of frames or a "
                                "folder of videos: --set predict.input=my_video.mp4")
    if path.is_file() or holds_frames(path):
        return [path]
    videos = [p for p in sorted(path.iterdir())
             if p.suffix.lower() in VIDEO_SUFFIXES or (p.is_dir() and holds_frames(p))]
    if not videos:
        raise FileNotFoundError(f"{path} holds no frames (.jpg, .png) and no videos ({', '.join(VIDEO_SUFFIXES)})")
    twice = [stem for stem, count in Counter(p.stem for p in videos).items() if count > 1]
    if twice:
        raise ValueError(f"{path} holds several videos called {twice[0]!r}, whose results would overwrite each other; "
                         "rename all but one")
    return videos


def holds_frames(folder: Path) -> bool:
    """Whether a folder's files are frames."""
    return any(file.suffix.lower() in (".jpg", ".jpeg", ".png") for file in folder.glob("*"))


@dataclass(frozen=True, kw_only=True)
class PredictedVideo(VideoOutcome):
    """One video of the input."""

    path: str = ""          # the file or folder that was read
    overlay: str = ""       # the drawn video
    segments: int = 0


class PredictVideo:
    """Ray Data actor: one video in, its overlay, PNGs and tracks out."""

    def __init__(self, *, recipe: Recipe) -> None:
        self.recipe = recipe
        self.system = open_system(recipe, recipe.predict_mode)
        self.writer = prediction_writer(recipe, self.system)

    def __call__(self, *, path: str) -> dict[str, Any]:
        """The `PredictedVideo` as JSON."""
        try:
            source = open_video(path)
            predicted = self.system.predict(source)
            self.writer.write(predicted)
            picture = pictured(predicted, self.system.classes)
            overlay = draw(source, picture, self.system.classes, output_folder(self.recipe) / "overlays",
                           times=getattr(source, "times", None))
        except BadInput as error:
            if self.recipe.strict:
                raise
            return PredictedVideo.skip(Path(path).name, error).to_json()
        return PredictedVideo(video=picture.video_id, frames=len(picture.frame_names), path=path, overlay=str(overlay),
                              segments=len(picture.segments)).to_json()


if __name__ == "__main__":
    run(main)
