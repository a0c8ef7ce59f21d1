"""Whether a sign holds: from draws of videos and seeds that are the same for a row and its reference."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.reproducing.report import as_csv, markdown, text
from jobs.reproducing.tables import Row, Synthetic, Table
from jobs.reproducing.verdicts import verdicts
from jobs.sweeping.ranking import TrialResult

TABLE = Table(id="paper.1", title="a table", metrics=("vpq", "stq"), reference="plain",
              synthetic=Synthetic(recipe="tiny", why="It can."),
              rows=(Row(name="plain", recipe="tiny", published={"vpq": 40.0}),
                    Row(name="better", recipe="tiny", synthetic=("x=1",), published={"vpq": 42.0}),
                    Row(name="worse", recipe="tiny", synthetic=("x=2",), published={"vpq": 39.0}),
                    Row(name="as good", recipe="tiny", synthetic=("x=3",), published={"vpq": 40.0}),
                    Row(name="by difference", recipe="tiny", synthetic=("x=4",), difference={"vpq": -1.8}),
                    Row(name="lacking", missing="a part", published={"vpq": 30.0})))


def results(**gains: float) -> list[TrialResult]:
    """Two seeds of each row: a score that videos move by 5, and its gain over the reference."""
    noise = np.random.default_rng(0).normal(0, 5, 200)
    return [TrialResult(name=f"{name}{seed}", settings=(name.replace("_", " "),), seed=seed,
                        numbers={"vpq": 50 + gain + seed}, draws={"vpq": (50 + gain + seed + noise).tolist()})
            for name, gain in gains.items() for seed in (0, 1)]


def signs(**gains: float) -> dict[str, str]:
    return {verdict.row: verdict.sign for verdict in verdicts(TABLE, results(**gains), "synthetic")
            if verdict.metric == "vpq"}


def test_a_sign_holds_where_the_interval_of_the_difference_is_on_the_side_of_the_paper():
    assert signs(plain=0, better=0.5, worse=0.5, as_good=1, by_difference=-1) == {
        "plain": "reference", "better": "held", "worse": "not held", "as good": "equal in the paper",
        "by difference": "held", "lacking": "no recipe yet: a part"}


def test_a_difference_that_contains_0_decides_nothing():
    assert signs(plain=0, better=0.0)["better"] == "undecided"
    noise = np.random.default_rng(1).normal(0, 5, 200)
    loose = [TrialResult(name="b", settings=("better",), seed=0, numbers={"vpq": 51},
                         draws={"vpq": (51 + noise).tolist()})]
    (verdict,) = (verdict for verdict in verdicts(TABLE, [*results(plain=0), *loose], "synthetic")
                  if (verdict.row, verdict.metric) == ("better", "vpq"))
    assert verdict.sign == "undecided"
    assert verdict.difference[1] < 0 < verdict.difference[2]


def test_rows_without_a_score_say_why():
    broken = TrialResult(name="x", settings=("better",), seed=0, error="stage_one: NotFinite")
    said = {verdict.row: verdict.sign for verdict in verdicts(TABLE, [*results(plain=0), broken], "synthetic")}
    assert said["better"] == "failed: stage_one: NotFinite"
    assert said["worse"] == "not scored: the split has no labels for this number"
    assert signs(better=1)["better"] == "the reference row has no score"


def test_the_table_has_the_numbers_as_text_markdown_and_csv():
    judged = verdicts(TABLE, results(plain=0, better=0.5), "synthetic")
    line = next(line for line in text(judged).splitlines() if line.startswith("better"))
    assert line.split()[:4] == ["better", "VPQ", "42.0", "51.0"]
    assert "| better | VPQ | 42.0 | 51.0 |" in markdown(TABLE, judged, "how")
    assert "Signs: 1 held, 0 not held, 0 undecided." in markdown(TABLE, judged, "how")
    assert "\nlacking,vpq,30.0,0,,,,plain,-10.0,,,,no recipe yet: a part\n" in as_csv(judged)


def test_a_reference_must_name_a_row():
    with pytest.raises(ValueError, match="reference names no row"):
        Table(id="x", title="x", metrics=("vpq",), reference="none", rows=(Row(name="a", recipe="tiny"),))
