"""One form for the outcome of a video: it survives JSON, is counted by reason, and all skipped is a data error."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pipeline.errors import BadInput
from pipeline.files import canonical_json
from pipeline.outcomes import Outcomes, Skipped, VideoOutcome
from pipeline.progress import Progress

ERROR = BadInput("corrupt-image", "cut after 7 bytes.", video="a", file="a/1.jpg", cure="Copy it again.")
MESSAGE = "video 'a', file a/1.jpg: cut after 7 bytes. Copy it again."


@dataclass(frozen=True, kw_only=True)
class Drawn(VideoOutcome):
    overlay: str = ""


def test_a_skipped_video_carries_the_reason_and_the_text_of_its_error():
    outcome = Drawn.skip("a", ERROR)
    assert outcome == Drawn(video="a", skipped=Skipped("corrupt-image", MESSAGE))
    assert outcome.to_json() == {"video": "a", "reason": "corrupt-image", "message": MESSAGE}


@pytest.mark.parametrize("outcome", [Drawn(video="b", frames=3, overlay="b.mp4"), Drawn.skip("a", ERROR)])
def test_an_outcome_survives_json(outcome):
    row = outcome.to_json()
    assert canonical_json(row)
    assert Drawn.from_json(row) == outcome


def test_outcomes_are_counted_by_reason_on_the_bar_and_told_in_order():
    with Progress("drawing", 5) as progress:
        outcomes = Outcomes(progress)
        outcomes.add([VideoOutcome(video="b", frames=3), VideoOutcome.skip("a", ERROR)])
        outcomes.add([VideoOutcome.skip("c", BadInput("empty-file", "the file is empty."))])
        outcomes.add([VideoOutcome(video="d", frames=4)])
    assert (progress.done, progress.skipped) == (2, {"corrupt-image": 1, "empty-file": 1})
    assert outcomes.reasons == {"corrupt-image": 1, "empty-file": 1}
    assert ([video.video for video in outcomes.done], outcomes.frames) == (["b", "d"], 7)
    assert [row["video"] for row in outcomes.skipped_rows()] == ["a", "c"]
    assert outcomes.skipped_lines() == [f"skipped: {MESSAGE}", "skipped: the file is empty."]
    outcomes.refuse_nothing_done("videos")


def test_all_skipped_is_a_data_error_that_quotes_the_first_and_no_video_at_all_is_none():
    outcomes = Outcomes()
    outcomes.refuse_nothing_done("videos")
    outcomes.add([VideoOutcome.skip("a", ERROR), VideoOutcome.skip("c", BadInput("empty-file", "it is empty."))])
    with pytest.raises(BadInput, match="file videos: none of 2 videos could be read; the first: video 'a',") as error:
        outcomes.refuse_nothing_done("videos")
    assert error.value.reason == "no-video"
