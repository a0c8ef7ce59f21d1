"""Which predicted thing covers each true thing in every frame, and where its identity switches.

Matches and switches are those that `Identity` and `TrackIdentity` count: the same code finds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.contracts import PanopticVideo, Tracks
from model.labels import ClassTable
from pipeline.metrics.frame_pass import Side, score_video
from pipeline.metrics.identity import Identity, LastMatches, Matches, Switch
from pipeline.metrics.track_identity import compared, matches_by_frame


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRow:
    """One true thing through a video."""

    thing: int                              # as in `Switch`
    class_index: int
    seen: tuple[bool, ...]                  # T
    matches: tuple[int | None, ...]         # T    the predicted thing that covers it; None: no one


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All true things of a video that are seen, and their identity switches in the order of time.

    Things are panoptic ids in a timeline of panoptic videos, and positions in `Tracks.tracks` in one of tracks.
    """

    video_id: str
    rows: tuple[TimelineRow, ...]
    switches: tuple[Switch, ...]


def panoptic_timeline(prediction: PanopticVideo, truth: PanopticVideo, classes: ClassTable) -> Timeline:
    """The timeline of one video. Raises BadInput for the reasons `score_video` lists."""
    recorder = _Recorder(classes)
    score_video([recorder], prediction, truth)
    return recorder.timeline


def track_timeline(prediction: Tracks, truth: Tracks, *, threshold: float) -> Timeline:
    """The timeline of one video, of predicted tracks whose score is at least `threshold`; crowds have no row.

    threshold: that of the `IdentityScores` whose switches are to be shown.
    """
    targets = [index for index, track in enumerate(truth.tracks) if not track.is_crowd]
    kept = [index for index, track in enumerate(prediction.tracks) if track.score >= threshold]
    ious = compared([prediction.tracks[index] for index in kept], [truth.tracks[index] for index in targets],
                    frames=len(truth.frame_names))
    by_frame = [[(targets[target], kept[predicted]) for target, predicted in matches]
                for matches in matches_by_frame(ious)]
    last = LastMatches()
    switches = [switch for frame, matches in enumerate(by_frame) for switch in last.switches(frame, matches)]
    rows = [TimelineRow(thing=index, class_index=truth.tracks[index].class_index,
                        seen=tuple(mask is not None for mask in truth.tracks[index].masks),
                        matches=tuple(dict(matches).get(index) for matches in by_frame)) for index in targets]
    return Timeline(video_id=truth.video_id, switches=tuple(switches), rows=tuple(row for row in rows if any(row.seen)))


class _Recorder(Identity):
    """`Identity` that keeps the timeline of its video."""

    timeline: Timeline

    def begin(self, truth: Side, prediction: Side) -> Matches:
        """Start a video."""
        return _RecordedMatches(self, truth, prediction)


class _RecordedMatches(Matches):
    """The matches of a video, which keep every frame."""

    def __init__(self, metric: _Recorder, truth: Side, prediction: Side) -> None:
        super().__init__(metric, truth, prediction)
        self.truth = truth
        self.prediction = prediction
        self.frames: list[tuple[np.ndarray, dict[int, int]]] = []       # seen, matches
        self.all_switches: list[Switch] = []

    def add_matches(self, frame: int, seen: np.ndarray, matches: list[tuple[int, int]]) -> list[Switch]:
        """Keep the matches and switches of a frame."""
        switches = super().add_matches(frame, seen, matches)
        self.frames.append((seen, dict(matches)))
        self.all_switches += switches
        return switches

    def finish(self, video: str, frames: int) -> None:
        """Count the video, and make its timeline."""
        super().finish(video, frames)
        true_ids = self.truth.ids.tolist()
        ids = dict(enumerate(self.prediction.ids.tolist()))
        rows = [TimelineRow(thing=true_ids[place], class_index=int(self.truth.classes[place]),
                            seen=tuple(bool(seen[place]) for seen, _ in self.frames),
                            matches=tuple(ids.get(matches.get(place)) for _, matches in self.frames))
                for place in np.flatnonzero(self.is_target).tolist()]
        switches = [Switch(frame=switch.frame, thing=true_ids[switch.thing], before=ids[switch.before],
                           before_frame=switch.before_frame, after=ids[switch.after]) for switch in self.all_switches]
        self.metric.timeline = Timeline(video_id=video, switches=tuple(switches),
                                        rows=tuple(row for row in rows if any(row.seen)))
