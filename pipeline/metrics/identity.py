"""How long predicted things keep their identities: IDF1 (Ristani et al., ECCVW 2016) and identity switches.

In a frame, a true and a predicted thing match if their IoU is above 0.5; classes do not matter, as in AQ. Pixels that
are void or crowd in the truth belong to neither side. In each video, true and predicted things are paired one to one
so that the pairs match in as many frames as possible. These matches are IDTP; IDR = IDTP / frames in which true things
are seen, IDP = IDTP / frames in which predicted things are seen, IDF1 = their harmonic mean. A predicted thing does not
count in a frame where it matches nothing and more than half of it lies on void or crowd. Stuff takes no part, except
that a thing predicted on it counts. A *switch*: a true thing matches another predicted thing than the last one that it
matched, however long ago. Counts are summed over videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from model.assignment import best_assignment
from model.labels import ClassTable
from pipeline.metrics.frame_pass import FramePair, LabelVideo, Side, score_video
from pipeline.metrics.numbers import NAN, cell, percent
from pipeline.metrics.per_video import PerVideoMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityScores:
    """Result of `Identity` and `TrackIdentity`. Fractions everywhere, percent in `summary` and `table`."""

    videos: int
    frames: int
    things: int                       # true things
    matched: int                      # IDTP; frames, as the next two
    true: int                         # in which true things are seen
    predicted: int                    # in which predicted things are seen
    switches: int
    name: str = "identity"            # first word of the table
    prefix: str = ""                  # of the names in `summary`
    threshold: float | None = None    # least score of the tracks that count; None: there are no scores

    @property
    def idf1(self) -> float:
        """0 to 1; NaN without true and predicted things."""
        return 2 * self.matched / (self.true + self.predicted) if self.true + self.predicted else NAN

    @property
    def idp(self) -> float:
        """0 to 1; NaN without predicted things."""
        return self.matched / self.predicted if self.predicted else NAN

    @property
    def idr(self) -> float:
        """0 to 1; NaN without true things."""
        return self.matched / self.true if self.true else NAN

    def summary(self) -> dict[str, float | int | None]:
        """In percent, but switches; None if there was nothing to score."""
        values = {"idf1": percent(self.idf1), "idp": percent(self.idp), "idr": percent(self.idr),
                  "switches": self.switches if self.things else None}
        return {self.prefix + name: value for name, value in values.items()}

    def table(self) -> str:
        """The scores, as text."""
        shown = "".join(cell(percent(value)) for value in (self.idf1, self.idp, self.idr))
        switches = self.switches if self.things else "-"
        chosen = "" if self.threshold is None else f", tracks of a score from {self.threshold:.1f}"
        return (f"{self.name:<22}{'IDF1':>8}{'IDP':>8}{'IDR':>8}{'switches':>10}\n"
                f"{'all':<22}{shown}{switches:>10}\n"
                f"{self.videos} videos, {self.frames} frames, {self.things} true things{chosen}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A true thing matches another predicted thing than the last one that it matched."""

    frame: int          # of the new match
    thing: int          # the true thing
    before: int         # the predicted thing of the match before
    before_frame: int   # of that match
    after: int          # the predicted thing of the new match


class LastMatches:
    """The last match of each true thing of a video; it finds the switches, for metrics and pictures alike."""

    def __init__(self) -> None:
        self.last: dict[int, tuple[int, int]] = {}      # true thing -> predicted thing, frame

    def switches(self, frame: int, matches: Sequence[tuple[int, int]]) -> list[Switch]:
        """Add the matches of the next frame, (true thing, predicted thing); returns their switches."""
        result = []
        for thing, predicted in matches:
            before, before_frame = self.last.get(thing, (predicted, frame))
            if before != predicted:
                result.append(Switch(frame=frame, thing=thing, before=before, before_frame=before_frame,
                                     after=predicted))
            self.last[thing] = (predicted, frame)
        return result


class Identity(PerVideoMetric):
    """Accumulates the matches of panoptic things in one pass over the frames; parts of a data set merge exactly."""

    def __init__(self, classes: ClassTable) -> None:
        super().__init__(classes)

    def update(self, prediction: LabelVideo, truth: LabelVideo) -> None:
        """Score one video. Raises BadInput, and counts nothing, for the reasons `score_video` lists."""
        score_video([self], prediction, truth)

    def begin(self, truth: Side, prediction: Side) -> Matches:
        """Start a video, in a pass shared with other metrics."""
        return Matches(self, truth, prediction)

    def result(self) -> IdentityScores:
        """The scores of everything counted so far."""
        records = [record for _, record in self.in_order()]
        matched, true, predicted, switches = summed(record["counts"] for record in records)
        return IdentityScores(videos=len(records), frames=self.frames(), matched=matched, true=true,
                              predicted=predicted, switches=switches,
                              things=sum(record["things"] for record in records))


class Matches:
    """All matches of one video."""

    def __init__(self, metric: Identity, truth: Side, prediction: Side) -> None:
        is_thing = np.append(metric.classes.is_thing, False)                # void is not a thing
        self.metric = metric
        self.is_ignored = truth.is_crowd
        self.is_target = is_thing[truth.classes] & ~truth.is_crowd
        self.is_thing = is_thing[prediction.classes]
        self.shape = (len(truth.ids), len(prediction.ids))
        self.matches = np.zeros(self.shape, np.int64)                       # frames in which each pair matches
        self.true = np.zeros(self.shape[0], np.int64)                       # frames in which each is seen
        self.predicted = 0
        self.last = LastMatches()
        self.switches = 0

    def add(self, frame: FramePair) -> None:
        """Match the things of one frame. IoUs above a half make every match the only one of both sides."""
        true, predicted = np.divmod(frame.pairs, self.shape[1])
        on_ignored = np.bincount(predicted, frame.areas * self.is_ignored[true], self.shape[1])
        area = np.bincount(predicted, frame.areas, self.shape[1])
        true_area = np.bincount(true, frame.areas, self.shape[0])
        union = true_area[true] + (area - on_ignored)[predicted] - frame.areas
        hit = self.is_target[true] & self.is_thing[predicted] & (2 * frame.areas > union)
        true = true[hit]
        predicted = predicted[hit]
        self.matches[true, predicted] += 1
        is_seen_truth = self.is_target & (true_area > 0)
        self.true += is_seen_truth
        is_seen = self.is_thing & (area > 0) & (2 * on_ignored <= area)
        is_seen[predicted] = True
        self.predicted += int(is_seen.sum())
        self.add_matches(frame.index, is_seen_truth, list(zip(true.tolist(), predicted.tolist())))

    def add_matches(self, frame: int, seen: np.ndarray, matches: list[tuple[int, int]]) -> list[Switch]:
        """Count the switches of a frame, and return them. seen: which true segments are seen; matches: (true,
        predicted), all as positions in the lists of the two `Side`s."""
        switches = self.last.switches(frame, matches)
        self.switches += len(switches)
        return switches

    def finish(self, video: str, frames: int) -> None:
        """Count the video."""
        self.metric.videos[video] = {"frames": frames, "things": int((self.true > 0).sum()), "counts": [
            paired(self.matches), int(self.true.sum()), self.predicted, self.switches]}


def paired(matches: np.ndarray) -> int:
    """IDTP: the most frames that match when true and predicted things are paired one to one. matches: frames, true x
    predicted."""
    return int(matches[best_assignment(-matches)].sum())


def summed(counts: Iterable[list[int]]) -> list[int]:
    """The sum of [matched, true, predicted, switches]."""
    return [sum(column) for column in zip([0, 0, 0, 0], *counts)]
