"""One video in one way of making it: truth and prediction to draw, and the timeline of its identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jobs.console import say
from jobs.evaluate import scored_part, true_results
from jobs.recipes.schema import Recipe
from jobs.reporting.evaluations import Evaluation
from model.contracts import PanopticVideo, Tracks, VideoResults
from model.labels import ClassTable
from pipeline.errors import BadInput
from pipeline.metrics.identity_timeline import Timeline, panoptic_timeline, track_timeline
from pipeline.metrics.track_identity import THRESHOLDS
from pipeline.shards import ShardSet, StoredVideo
from pipeline.visualise.painted import painted_tracks, pictured


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A video as one way made it. All things are named by the panoptic ids of the two videos to draw."""

    evaluation: Evaluation
    stored: StoredVideo
    truth: PanopticVideo
    predicted: PanopticVideo
    timeline: Timeline | None = None    # None for semantic results, which have no identities
    switches: int = 0                   # that the metric counted when the video was evaluated


def open_scene(evaluation: Evaluation, stored: StoredVideo, shards: ShardSet, recipe: Recipe) -> Scene | None:
    """The scene of a video; None, with a line that says why, where its predictions are not at hand."""
    results = evaluation.results(stored.video_id, shards.classes)
    truth = true_results(recipe, shards, stored)
    if results is None or truth is None:
        return None
    kind = recipe.inference.results[0]
    if getattr(results, kind) is None:
        say(f"{evaluation.title}: no pictures of {stored.video_id!r}: its {kind} results were not kept; leave "
            "evaluation.formats empty and evaluate again")
        return None
    scene = Scene(evaluation=evaluation, stored=stored, truth=pictured(truth, shards.classes),
                  predicted=pictured(results, shards.classes), switches=counted_switches(evaluation, stored.video_id))
    try:
        if kind == "tracks":
            return _with_tracks(scene, scored_part(results, stored).tracks, truth.tracks)
        return replace(scene, timeline=_timeline(results, truth, shards.classes))
    except BadInput as error:           # maps are read only now
        say(f"{evaluation.title}: no pictures of {stored.video_id!r}: {error}")
        return None


def _timeline(results: VideoResults, truth: VideoResults, classes: ClassTable) -> Timeline | None:
    if results.panoptic is None:
        return None
    return panoptic_timeline(results.panoptic, truth.panoptic, classes)


def counted_switches(evaluation: Evaluation, video: str) -> int:
    """The identity switches of one video in the scores of the evaluation; 0 where nothing has identities."""
    metrics = {name: metric for group in evaluation.cards[video].metrics.values() for name, metric in group.items()}
    if "identity" in metrics:
        return metrics["identity"].result().switches
    if "track_identity" in metrics:
        threshold = THRESHOLDS.tolist().index(evaluation.track_threshold)
        return metrics["track_identity"].videos[video]["counts"][threshold][-1]
    return 0


def _with_tracks(scene: Scene, predicted: Tracks, truth: Tracks) -> Scene:
    """The scene of tracks from the threshold on, with the positions of the timeline as painted ids."""
    threshold = scene.evaluation.track_threshold
    timeline = track_timeline(predicted, truth, threshold=threshold)
    ids = painted_ids(predicted, min_score=threshold)
    true_ids = painted_ids(truth, min_score=0)
    rows = tuple(replace(row, thing=true_ids[row.thing],
                         matches=tuple(None if match is None else ids[match] for match in row.matches))
                 for row in timeline.rows)
    switches = tuple(replace(switch, thing=true_ids[switch.thing], before=ids[switch.before], after=ids[switch.after])
                     for switch in timeline.switches)
    return replace(scene, predicted=painted_tracks(predicted, min_score=threshold),
                   truth=painted_tracks(truth, min_score=0), timeline=replace(timeline, rows=rows, switches=switches))


def painted_ids(video: Tracks, *, min_score: float) -> dict[int, int]:
    """Position of a track -> its id in `painted_tracks`."""
    order = sorted((index for index, track in enumerate(video.tracks) if track.score >= min_score),
                   key=lambda index: -video.tracks[index].score)
    return dict(zip(order, painted_tracks(video, min_score=min_score).segments))


def ranked_videos(evaluation: Evaluation, number: str) -> list[str]:
    """The videos that have a number of their own, worst first."""
    known = {video: numbers[number] for video, numbers in evaluation.per_video.items()
             if numbers.get(number) is not None}
    return sorted(known, key=lambda video: (known[video], video))


def switching_videos(evaluations: Sequence[Evaluation], most: int) -> list[str]:
    """The videos with the most switches in all results together; those without any are left out."""
    totals: dict[str, int] = {}
    for evaluation in evaluations:
        for video in evaluation.cards if evaluation.is_result else ():
            totals[video] = totals.get(video, 0) + counted_switches(evaluation, video)
    return sorted((video for video, total in totals.items() if total), key=lambda video: (-totals[video], video))[:most]
