"""Segment and track videos and pictures of one's own: files, folders, globs or lists in, results out.

In:     predict.input, and the finished models (predict.mode = near_online, offline).
Out:    predict.output: overlays/<video>.mp4 (.png of a single picture), and the results in predict.formats: vipseg
        (panoptic PNGs with pred.json), youtube_vis (tracks.json: one entry per object), vspw, kitti_step.
Again:  every video is predicted again; videos of earlier runs into the same folder stay in its json files; results of
        another model are never mixed in. A broken file is named, counted and skipped.
Cost:   one pass of inference; memory does not grow with the length of the video.

    python -m jobs.predict --recipe demo --set predict.input=my_video.mp4
    python -m jobs.predict --recipe demo --set predict.input='/data/*.mp4' --set predict.every=5 --set predict.end=60
    python -m jobs.predict --recipe demo --set predict.input=/data/videos --set predict.mode=near_online
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs.cluster import connect, results_of
from jobs.console import say
from jobs.kept_predictions import USES_LABELS
from jobs.models import open_system
from jobs.recipes.schema import Recipe
from jobs.verb import recorded, run
from pipeline import store
from pipeline.at_work import alone_in
from pipeline.clips import FolderSource, VideoClip
from pipeline.datasets.excerpt import Excerpt
from pipeline.datasets.own_videos import OwnVideo, OwnVideos, find_videos
from pipeline.datasets.raw_video import open_video
from pipeline.errors import BadInput
from pipeline.outcomes import Outcomes, VideoOutcome
from pipeline.predictions import PredictionWriter, Selection, earlier_videos
from pipeline.progress import Progress, Report, Watch, unwatched
from pipeline.system import System
from pipeline.together import Walk, walks_together
from pipeline.visualise.drawing import draw
from pipeline.visualise.painted import MIN_SCORE, pictured
from pipeline.visualise.sound import add_sound


def main(recipe: Recipe) -> dict[str, Any]:
    """Predict every video of the input; returns where each result lies and what was skipped.

    Waits for another verb that writes into the same folder.
    """
    if recipe.evaluation.association:
        raise ValueError(f"evaluation.association={recipe.evaluation.association} {USES_LABELS}, and a video to "
                         "predict has none; leave evaluation.association empty and choose inference.association")
    recipe = with_mode(recipe)
    with alone_in(output_folder(recipe), "jobs.predict"):
        return predict_into(recipe, output_folder(recipe))


def predict_into(recipe: Recipe, output: Path) -> dict[str, Any]:
    """Predict every video of the input into a folder."""
    earlier = earlier_videos(output)
    given = find_videos(recipe.predict.input, taken=earlier)
    kept = sorted(earlier.keys() - {video.name for video in given.videos})
    with Progress("predicting", len(given.videos) + len(given.left_out)) as progress:
        writer = prediction_writer(recipe, open_system(recipe, recipe.predict_mode))   # a missing model stops here
        writer.refuse_unlike(kept)
        connect(recipe.cluster)
        tags = {"mode": recipe.predict_mode, "segmenter": writer.made_by["segmenter_sha256"]}
        with recorded(recipe, "predict", **tags) as tracker:
            outcomes = predict_all(recipe, given, progress)
            store.look(output)      # other machines may have written results
            done = outcomes.done
            tracker.numbers(0, {"videos": len(done), "frames": outcomes.frames, "skipped": len(outcomes.skipped)})
            if done:
                writer.finish(filter(writer.is_finished, {*earlier, *(video.video for video in done)}))
                tracker.file(Path(done[0].overlay), "overlays")
    say(*outcomes.skipped_lines(), *(f"damaged: {video.damage}" for video in done if video.damage),
        *(f"left out: {video.left_out}" for video in done if video.left_out),
        f"{len(done)} videos in {output}" + (f", beside {len(kept)} of earlier runs" if kept else ""))
    outcomes.refuse_nothing_done(str(recipe.predict.input))
    return {"output": str(output), "videos": [video.to_json() for video in done], "skipped": outcomes.skipped_rows(),
            "kept": kept}


def predict_all(recipe: Recipe, given: OwnVideos, progress: Progress) -> Outcomes:
    """Predict the videos on the cluster, and count what was left out."""
    outcomes = Outcomes(progress)
    rows = [{"video": video.to_text()} for video in given.videos]
    for row in results_of(PredictVideo, rows, arguments={"recipe": recipe}, cluster=recipe.cluster,
                          report=progress.report, together=recipe.inference.clips_together):
        outcomes.add([PredictedVideo.from_json(row)])
    outcomes.add([PredictedVideo.skip(Path(error.file or "").name, error) for error in given.left_out])
    return outcomes


def with_mode(recipe: Recipe) -> Recipe:
    """The recipe with its mode decided: offline needs a finished cross-clip head, without one it is near-online."""
    mode = recipe.predict_mode
    if recipe.predict.mode is None and mode == "offline" and not (recipe.head_folder / "model.json").is_file():
        say(f"predicting near-online: {recipe.head_folder} holds no cross-clip head yet (train_stage_two makes it)")
        mode = "near_online"
    return replace(recipe, predict=replace(recipe.predict, mode=mode))


def output_folder(recipe: Recipe) -> Path:
    """Where the results go."""
    return Path(recipe.predict.output) if recipe.predict.output else recipe.run_folder / "predictions"


def prediction_writer(recipe: Recipe, system: System) -> PredictionWriter:
    """Writes into the output folder. Raises ValueError when it holds the results of another model."""
    config = recipe.predict
    chosen = {"threshold": config.threshold, "classes": list(config.classes)}
    return PredictionWriter(folder=output_folder(recipe), classes=system.classes, formats=config.formats,
                            made_by=system.made_by | {name: value for name, value in chosen.items() if value})


@dataclass(frozen=True, kw_only=True)
class PredictedVideo(VideoOutcome):
    """One video of the input."""

    path: str = ""          # the file or folder that was read
    overlay: str = ""       # the drawn video, or picture
    segments: int = 0
    sound: bool = False     # whether the overlay has that of the video
    damage: str = ""        # of a video of which only the readable part was predicted
    left_out: str = ""      # further video streams in its file


@dataclass(frozen=True, kw_only=True)
class _Given:
    """A video of the input while it is predicted."""

    own: OwnVideo
    watch: Watch
    faults: list[BadInput] | None       # gets those of pictures that are left out of a folder; None: they raise


class PredictVideo:
    """Ray Data actor: one video in, its overlay, PNGs and tracks out."""

    def __init__(self, *, recipe: Recipe, report: Report = unwatched) -> None:
        self.recipe = recipe
        self.report = report
        self.config = recipe.predict
        self.system = open_system(recipe, recipe.predict_mode)
        self.writer = prediction_writer(recipe, self.system)
        self.selection = Selection.named(self.config.threshold, self.config.classes, self.system.classes)

    def __call__(self, *, video: str) -> dict[str, Any]:
        """video: an `OwnVideo` as text. Returns the `PredictedVideo` as JSON."""
        (predicted,) = self.together([{"video": video}])
        return predicted

    def together(self, rows: Sequence[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
        """The `PredictedVideo` of each row as JSON; clips of different videos share batches."""
        videos = [OwnVideo.from_text(row["video"]) for row in rows]
        given = [_Given(own=own, watch=Watch(own.name, self.report), faults=None if self.recipe.strict else [])
                 for own in videos]
        opens = [partial(self._open, one) for one in given]
        with walks_together(self.system, opens, self.system.clips, places=self.system.reads_places) as walks:
            for one, walk in zip(given, walks):
                yield self._outcome(one, walk).to_json()

    def _outcome(self, given: _Given, walk: Walk[Excerpt, VideoClip]) -> PredictedVideo:
        own = given.own
        try:
            with given.watch:
                return self._predicted(given, walk)
        except ValueError as error:     # a `BadInput`, or a video beyond what results can hold
            if self.recipe.strict:
                raise
            if not isinstance(error, BadInput):
                error = BadInput("unpredictable", f"it cannot be predicted: {error}.", file=own.path)
            return PredictedVideo.skip(Path(own.path).name, error)
        finally:
            store.release([Path(own.path)])

    def _predicted(self, given: _Given, walk: Walk[Excerpt, VideoClip]) -> PredictedVideo:
        own = given.own
        watch = given.watch
        source = walk.source
        results = self.selection.applied_to(self.system.predict(source, clips=walk, watch=watch))
        self.writer.write(watch.over_results("writing", results), path=own.path, times=source.times)
        is_film = not isinstance(source.source, FolderSource)
        threshold = MIN_SCORE if self.config.threshold is None else self.config.threshold
        picture = pictured(results, self.system.classes, min_score=threshold)
        overlay = draw(source, picture, self.system.classes, output_folder(self.recipe) / "overlays", watch=watch,
                       times=source.times, still=not is_film and Path(own.path).is_file())
        has_sound = is_film and add_sound(overlay, Path(own.path), start=source.span[0], end=source.span[1])
        return PredictedVideo(video=own.name, frames=len(source.times), path=own.path, overlay=str(overlay),
                              segments=len(picture.segments), damage=_damage(own, source, given.faults),
                              sound=has_sound, left_out=getattr(source.source, "left_out", ""))

    def _open(self, given: _Given) -> Excerpt:
        """The wanted frames of a video. Raises BadInput also where its file is not there or may not be read."""
        config = self.config
        own = given.own
        try:
            source = open_video(own.path, keep_damaged=config.keep_damaged, faults=given.faults,
                                counted=lambda frames: given.watch.at("checking", frames))
        except OSError as error:
            raise BadInput("unreadable", f"it cannot be opened: {error.strerror or error}.", file=own.path,
                           cure="Copy it again, or give this user read permission.") from error
        return Excerpt(source, video_id=own.name, every=config.every, start=config.start, end=config.end,
                       fps=config.fps)


def _damage(own: OwnVideo, source: Excerpt, faults: list[BadInput] | None) -> str:
    damage = getattr(source.source, "damage", "")
    if damage:
        return f"{own.path}: {len(source.times)} frames before the damage were predicted ({damage})"
    if faults:
        return f"{own.path}: {len(faults)} pictures are left out, since they cannot be read; the first: {faults[0]}"
    return ""


if __name__ == "__main__":
    run(main, uses=("pool",))
