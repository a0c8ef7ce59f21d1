"""Score a split: the segmenter, alone or with the cross-clip head, or predictions on disk.

In:     shards of the split, and models (evaluation.mode = untrained, near_online, offline) or evaluation.predictions.
        inference.results: panoptic (VPQ, STQ, IDF1), tracks (AP, IDF1), semantic (mIoU, mVC). Without labels
        nothing is scored.
        evaluation.video_sets: a json of sets of videos whose tracks are scored apart too (YouTube-VIS 2022).
Out:    <folder>/scores/<mode>: scores.json, classes.json, videos.json (the counts of each video, from which the scores
        of any set of videos follow), overlay videos, and predictions in evaluation.formats: vipseg, youtube_vis (with
        results.zip for the evaluation servers), vspw, kitti_step.
        Another association than hungarian has its own folder, <mode>_<association>; so has a head with inference.head,
        and a video in parts (inference.parts).
        A video with a wrong entry among evaluation.predictions is left out, named and counted; one that no entry of a
        results.json mentions has no tracks, as on the evaluation servers.
        evaluation.association=oracle: the labels order the queries; a reference line, in the folder <mode>_oracle.
Again:  the split is scored again; re-scoring predictions on disk (evaluation.predictions) runs no network.
Cost:   one pass of inference over the split.

    python -m jobs.evaluate --recipe tiny
    python -m jobs.evaluate --recipe tiny --set evaluation.mode=offline
    python -m jobs.evaluate --recipe tiny --set inference.association=memory_buffer
    python -m jobs.evaluate --recipe demo --set inference.association=links
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

from jobs.cluster import connect, results_of
from jobs.console import say
from jobs.kept_predictions import (
    USES_LABELS,
    finish_predictions,
    prediction_writer,
    refuse_strays,
    scores_folder,
    stored_predictions,
    stray_entries,
)
from jobs.models import open_system
from jobs.recipes.schema import Recipe
from jobs.training.tracker import Tracker
from jobs.verb import command_line, recorded, run
from model.association.linker import MatchingSpace
from model.contracts import ClipTargets, Tracks, VideoResults
from model.labels import ClassTable
from pipeline import store
from pipeline.at_work import alone_in
from pipeline.clips import StoredVideoSource, VideoClip
from pipeline.datasets.folders import load_json
from pipeline.errors import BadInput
from pipeline.file_names import name_for
from pipeline.files import atomic_write
from pipeline.metrics.labelled_frames import tracks_in
from pipeline.metrics.scorecard import Scorecard, headline
from pipeline.metrics.track_ap_scores import sets_table
from pipeline.metrics.vpq import PROTOCOLS
from pipeline.outcomes import Outcomes, VideoOutcome
from pipeline.progress import Progress, Report, Watch, unwatched
from pipeline.shards import ShardSet, StoredVideo
from pipeline.together import Walk, walks_together
from pipeline.true_tubes import true_tubes
from pipeline.visualise.drawing import draw
from pipeline.visualise.painted import pictured

# Numbers that the run of the whole pipeline has in MLflow too, with the ends of their names there.
PERCENT = ("vpq", "vpq_k12", "stq", "aq", "idf1", "ap", "ap50", "track_idf1", "miou", "mvc8")
HEADLINE = {**dict.fromkeys(PERCENT, "_percent"), "switches": "", "track_switches": "", "frames_per_second": ""}
VIDEOS = "videos.json"      # video -> {"scores": its Scorecard as JSON, null without labels, "matching": MatchingSpace}


def main(recipe: Recipe) -> dict[str, Any]:
    """Score every video of the split on the cluster, merge, print, record; returns the headline numbers.

    Waits for another verb that writes the same scores.
    """
    with alone_in(scores_folder(recipe), "jobs.evaluate"):
        return score_split(recipe, scores_folder(recipe))


def score_split(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Score every video of the split, and write scores and predictions into the folder."""
    config = recipe.evaluation
    shards = ShardSet(recipe.shards_of(config.split))
    sets = read_video_sets(config.video_sets, shards)
    card = scorecard(recipe, shards.classes)
    matching = MatchingSpace()
    with Progress("evaluating", len(shards.videos)) as progress:
        # A missing or foreign model, or predictions of something else, stop here, not on a worker.
        predictions = stored_predictions(recipe, shards.classes)
        refuse_strays(recipe, predictions)
        system = open_system(recipe, config.mode, shards.classes) if predictions is None else None
        writer = prediction_writer(recipe, system, shards)
        connect(recipe.cluster)
        started = time.perf_counter()
        with recorded(recipe, f"evaluate_{folder.name}", shards=shards.fingerprint) as tracker:
            outcomes = Outcomes(progress)
            videos: list[ScoredVideo] = []
            rows = [{"video": video} for video in range(len(shards.videos))]
            for row in results_of(ScoreVideo, rows, arguments={"recipe": recipe}, cluster=recipe.cluster,
                                  report=progress.report, together=recipe.inference.clips_together):
                videos.append(ScoredVideo.from_json(row))
                outcomes.add(videos[-1:])
            outcomes.refuse_nothing_done(shards.folder)
            store.look(folder)      # other machines may have written predictions and overlays
            videos.sort(key=lambda video: video.video)      # the last digit of a sum depends on the order
            for video in videos:
                matching.merge(MatchingSpace(**video.matching))
                if video.scores is not None:
                    card.merge(Scorecard.from_json(video.scores))
            counts = {video.video: {"scores": video.scores, "matching": video.matching} for video in videos}
            files = finish_predictions(recipe, writer, [video.video for video in outcomes.done]) or config.predictions
            seconds = time.perf_counter() - started
            scores = card.scores()
            by_set = card.ap_by_set(sets) if sets else {}
            summary = {"mode": folder.name, "uses_labels": bool(config.association), **headline(scores),
                       "command": command_line(recipe, "evaluate").removeprefix("next: "),
                       "video_sets": by_set, "videos": len(outcomes.done),
                       "frames": outcomes.frames,
                       "skipped": sorted(outcomes.skipped_rows(), key=lambda row: row["video"]),
                       "stray_entries": stray_entries(predictions),
                       "frames_per_second": outcomes.frames / seconds,
                       "matching_space": matching.summary(), "predictions": files or None,
                       "overlays": sorted(map(str, folder.glob("overlays/*.mp4")))}
            atomic_write(folder / "scores.json", json.dumps(summary, indent=1).encode())
            atomic_write(folder / "classes.json", json.dumps(class_rows(scores), indent=1).encode())
            atomic_write(folder / VIDEOS, json.dumps(counts, sort_keys=True).encode())
            record(tracker, folder, summary, step=trained_steps(recipe))
            record_tables(tracker, class_rows(scores))
    name = f"{folder.name} ({USES_LABELS})" if config.association else folder.name
    say(*([f"{name}: a reference, not a result", ""] if config.association else []),
        *(f"{result.table()}\n" for result in scores.values()), *([f"{sets_table(by_set)}\n"] if by_set else []),
        *outcomes.skipped_lines(), *stray_lines(summary["stray_entries"]), *short_videos(summary),
        *(nothing_predicted(recipe, len(outcomes.done)) if not any(video.objects for video in videos) else []),
        f"{name}: {in_words(summary)} over {len(outcomes.done)} videos; everything in {folder}")
    return {**summary, "tracking_uri": tracker.ids["uri"], "mlflow_run_id": tracker.ids["run_id"],
            "mlflow_parent_run_id": tracker.ids["parent_id"]}


def scorecard(recipe: Recipe, classes: ClassTable) -> Scorecard:
    """The metrics a recipe asks for, nothing scored yet."""
    config = recipe.evaluation
    return Scorecard(classes, recipe.inference.results, windows=config.windows, stq_compat=config.stq_compat,
                     mvc_compat=config.mvc_compat)


def read_video_sets(path: str, shards: ShardSet) -> dict[str, list[str]]:
    """Name of a set -> its videos, from a json; {} without one.

    Raises FileNotFoundError without the file, ValueError unless every video of the shards is in exactly one set.
    """
    if not path:
        return {}
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; evaluation.video_sets names a json such as "
                                '{"short": [video ids], "long": [video ids]}')
    sets = load_json(Path(path))
    if not isinstance(sets, dict) or not all(isinstance(videos, list) and set(map(type, videos)) <= {str}
                                             for videos in sets.values()):
        raise ValueError(f"{path} is no object with a list of video ids for each set, such as "
                         '{"short": [video ids], "long": [video ids]}')
    members = Counter(video for videos in sets.values() for video in videos)
    if wrong := sorted(video for video, times in (members + Counter(shards.videos.ids())).items()
                       if times != 2 or members[video] != 1):
        raise ValueError(f"{path}: {len(wrong)} videos are not in exactly one of the sets {list(sets)}, or not in "
                         f"{shards.folder}, first {wrong[0]!r}. List each video of the split once, by the name of its "
                         "folder of frames")
    return sets


def points(value: float | None) -> str:
    """A score for people; "no" where every video was too short, or nothing was to be scored."""
    return "no" if value is None else f"{value:.1f}"


def in_words(summary: dict[str, Any]) -> str:
    """The first number of each result."""
    names = {"vpq": "VPQ", "ap": "AP", "miou": "mIoU"}
    return ", ".join(f"{points(summary[key])} {name}" for key, name in names.items() if key in summary)


def count_objects(predicted: VideoResults) -> int:
    """The segments and tracks of a video's results."""
    panoptic = 0 if predicted.panoptic is None else len(predicted.panoptic.segments)
    return panoptic + (0 if predicted.tracks is None else len(predicted.tracks.tracks))


def nothing_predicted(recipe: Recipe, videos: int) -> list[str]:
    """A line for scores of 0 that come from empty results; none where every pixel has a class."""
    if "semantic" in recipe.inference.results:
        return []
    return [f"nothing was predicted in any of {videos} videos, so there is nothing to score: the model has not learnt "
            "yet, or the thresholds (inference.panoptic, inference.tracks) are above its scores"]


def short_videos(summary: dict[str, Any]) -> list[str]:
    """A line where VPQ has no mean although some of its windows have a score."""
    by_window = summary.get("vpq_by_window", {})
    none = [window for window, value in by_window.items() if value is None and int(window) in PROTOCOLS[0]]
    if not none or all(value is None for value in by_window.values()):
        return []
    return [f"no VPQ: it is the mean over windows of {', '.join(map(str, PROTOCOLS[0]))} frames, and no video has a "
            f"scored window of {' or '.join(none)} frames; the other windows have their scores above"]


def stray_lines(strays: list[dict[str, Any]]) -> list[str]:
    """A line for people about every kind of entry that belongs to no video."""
    return [f"not scored: {stray['message']}" + f" ({stray['entries']} entries are so)" * (stray["entries"] > 1)
            for stray in strays]


def class_rows(scores: dict[str, Any]) -> dict[str, Any]:
    """Every metric's rows, one per class."""
    return {name: result.class_rows() for name, result in scores.items() if hasattr(result, "class_rows")}


def trained_steps(recipe: Recipe) -> int:
    """The steps of the model that is scored; 0 of an untrained one, and of predictions on disk."""
    mode = recipe.evaluation.mode
    if mode == "untrained" or recipe.evaluation.predictions:
        return 0
    has_stage = mode == "offline" and recipe.stage_two is not None
    return (recipe.stage_two if has_stage else recipe.stage_one).fit.steps


def record(tracker: Tracker, folder: Path, summary: dict[str, Any], *, step: int) -> None:
    """Numbers and files of one evaluation, into MLflow; the headline also into the run of the whole pipeline."""
    numbers = {name: value for name, value in summary.items() if isinstance(value, float)}
    numbers |= {name: summary[name] for name in ("switches", "track_switches") if name in summary}
    numbers |= {f"vpq_k{window}": value for window, value in summary.get("vpq_by_window", {}).items()}
    numbers |= {f"ap_of_{name}": part["ap"] for name, part in summary["video_sets"].items()}
    numbers |= {f"matching_space_{name}": value for name, value in summary["matching_space"].items()}
    tracker.numbers(step, {name: value for name, value in numbers.items() if value is not None})
    tracker.parent_numbers({f"{folder.name}/{name}{unit}": numbers[name] for name, unit in HEADLINE.items()
                            if numbers.get(name) is not None})
    for name in ("scores.json", "classes.json"):
        tracker.file(folder / name)
    for video in summary["overlays"][:1]:
        tracker.file(Path(video), "overlays")


def record_tables(tracker: Tracker, tables: dict[str, Any]) -> None:
    """A table of the classes for each metric, where MLflow compares tables of runs."""
    for name, rows in tables.items():
        if rows:
            tracker.table(f"classes_{name}.json", rows)


def scored_part(predicted: VideoResults, video: StoredVideo) -> VideoResults:
    """The results without what tracks show in frames that nobody labelled; maps keep it, since void is ignored."""
    labelled = {index for index, frame in enumerate(video.frames) if frame.label is not None}
    if predicted.tracks is None or len(labelled) == len(video.frames):
        return predicted
    return replace(predicted, tracks=tracks_in(predicted.tracks, labelled))


def true_results(recipe: Recipe, shards: ShardSet, video: StoredVideo) -> VideoResults | None:
    """What the annotation says of a video, in the forms the results are scored in; None without annotation."""
    if not video.has_labels:
        return None
    results = recipe.inference.results
    return VideoResults(panoptic=shards.truth(video) if "panoptic" in results else None,
                        tracks=shards.truth_tracks(video) if "tracks" in results else None,
                        semantic=shards.truth_semantic(video) if "semantic" in results else None)


@dataclass(frozen=True, kw_only=True)
class ScoredVideo(VideoOutcome):
    """One video of the split."""

    scores: dict[str, Any] | None = None                             # the Scorecard as JSON; None without labels
    matching: dict[str, int] = field(default_factory=dict)           # the fields of MatchingSpace
    objects: int = 0                                                 # segments and tracks that were predicted


class ScoreVideo:
    """Ray Data actor: one video in, its share of the scores out; predictions and overlays go to disk on the way."""

    def __init__(self, *, recipe: Recipe, report: Report = unwatched) -> None:
        self.recipe = recipe
        self.report = report
        self.config = recipe.evaluation
        self.folder = scores_folder(recipe)
        self.shards = ShardSet(recipe.shards_of(self.config.split))
        self.predictions = stored_predictions(recipe, self.shards.classes)
        self.system = (open_system(recipe, self.config.mode, self.shards.classes) if self.predictions is None
                       else None)
        self.writer = prediction_writer(recipe, self.system, self.shards)

    def __call__(self, *, video: int) -> dict[str, Any]:
        """The `ScoredVideo` as JSON."""
        (scored,) = self.together([{"video": video}])
        return scored

    def together(self, rows: Sequence[Mapping[str, int]]) -> Iterator[dict[str, Any]]:
        """The `ScoredVideo` of each row as JSON; clips of different videos share batches."""
        sources = [StoredVideoSource(self.shards, self.shards.videos[row["video"]]) for row in rows]
        with self._walks(sources) as walks:
            for row, source, walk in zip(rows, sources, walks):
                with Watch(source.video_id, self.report) as watch:
                    scored = self._scored(row["video"], source, walk, watch)
                yield scored.to_json()

    def _walks(self, sources: Sequence[StoredVideoSource]) -> AbstractContextManager[Iterable[Walk | None]]:
        """The videos in the segmenter; None for each where predictions on disk are scored."""
        if self.system is None:
            return nullcontext(repeat(None))
        opens = [partial(StoredVideoSource, source.shards, source.video) for source in sources]
        return walks_together(self.system, opens, self.system.clips, places=self.system.reads_places)

    def _scored(self, video: int, source: StoredVideoSource, walk: Walk | None, watch: Watch) -> ScoredVideo:
        """video: its number. walk: its clips and their predictions; None where its results lie on disk."""
        matching = MatchingSpace()
        stored = source.video
        try:
            name_for(stored.video_id)
            predicted = (self._stored(stored.video_id) if walk is None else self.system.predict(
                source, clips=walk, matching=matching, watch=watch, truth_of=self._truth_of(stored)))
            truth = true_results(self.recipe, self.shards, stored)
            card = scorecard(self.recipe, self.shards.classes)
            if truth is not None:
                card.update(watch.over_results("scoring", scored_part(predicted, stored)), truth)
            if self.writer is not None:
                self.writer.write(watch.over_results("writing", predicted))
            if video < self.config.overlays:
                draw(source, pictured(predicted, self.shards.classes), self.shards.classes, self.folder / "overlays",
                     truth=None if truth is None else pictured(truth, self.shards.classes), watch=watch)
        except BadInput as error:
            if self.recipe.strict:
                raise
            return ScoredVideo.skip(stored.video_id, error)
        return ScoredVideo(video=stored.video_id, frames=len(stored.frames), matching=asdict(matching),
                           objects=count_objects(predicted), scores=None if truth is None else card.to_json())

    def _stored(self, video_id: str) -> VideoResults:
        if video_id not in self.predictions:
            raise BadInput("no-prediction", "there is no prediction of this video.", video=video_id,
                           file=self.config.predictions, cure="Predict it too, or make the shards without it.")
        video = self.predictions[video_id]
        return VideoResults(tracks=video) if isinstance(video, Tracks) else VideoResults(panoptic=video)

    def _truth_of(self, stored: StoredVideo) -> Callable[[VideoClip], ClipTargets] | None:
        """The true tubes of the clips of a video, where they decide the order of queries. Raises BadInput without."""
        if not self.config.association:
            return None
        if not stored.has_labels:
            raise BadInput("no-labels", f"evaluation.association={self.config.association} {USES_LABELS}, and this "
                           "video has none.", video=stored.video_id,
                           cure="Leave evaluation.association empty, or score a split with labels.")
        return partial(true_tubes, video=stored, classes=self.shards.classes)


if __name__ == "__main__":
    run(main, uses=("pool",))
