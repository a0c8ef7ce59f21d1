"""VPQ and STQ give the numbers of the official VIPSeg scripts, files read through the project's own reader."""

import json

import pytest

from model.labels import ClassInfo, ClassTable
from pipeline.metrics.frame_pass import score_video
from pipeline.metrics.stq import STQ
from pipeline.metrics.vpq import VPQ, Quality
from pipeline.predictions import Predictions
from tests.fidelity.cases import Ledger, case_folders, case_id

TIGHT = 1e-9    # closer than the cases ask for


@pytest.mark.parametrize("folder", case_folders("metric_video_panoptic"), ids=case_id)
def test_vpq_and_stq_equal_the_official_scripts(folder):
    case = json.loads((folder / "expected.json").read_text())
    expected = Ledger(case["expected"])
    atol = min(TIGHT, case["tolerance"]["atol"])
    categories = json.loads((folder / "panoptic_gt.json").read_text())["categories"]
    classes = ClassTable("case", tuple(ClassInfo(row["id"], row["name"], bool(row["isthing"]), tuple(row["color"]))
                                       for row in categories))
    truth = Predictions(annotations=folder / "panoptic_gt.json", maps=folder / "panomasksRGB", classes=classes)
    predictions = Predictions(annotations=folder / "prediction" / "pred.json", classes=classes,
                              maps=folder / "prediction" / "pan_pred")
    vpq = VPQ(classes, windows=[int(k) for k in expected["vpq"]])
    stq = STQ(classes, official_compat="vipseg")
    for video in truth:
        score_video([vpq, stq], predictions[video], truth[video])

    assert_vpq(vpq, expected["vpq"], atol)
    means = [name for name in expected if name.startswith("vpq_mean_")]
    assert means
    for name in means:
        windows = tuple(int(k) for k in name.removeprefix("vpq_mean_").split("_"))
        assert_quality(vpq.result().mean(windows), expected[name], atol)
    assert_stq(stq, list(truth), Ledger(expected["stq"]), atol)
    assert not expected.unread


def assert_vpq(vpq, expected, atol):
    scores = vpq.result()
    for k, official in expected.items():
        assert_quality(scores.of(int(k)), official, 100 * atol)
        rows = {str(info.dataset_id): row for info, row in zip(vpq.classes.classes, scores.per_class[int(k)])}
        occurring = {name for name, row in official["per_class"].items() if row["tp"] + row["fp"] + row["fn"]}
        assert {name for name, row in rows.items() if row.occurs} == occurring
        for name in occurring:
            row = rows[name]
            numbers = official["per_class"][name]
            assert (row.tp, row.fp, row.fn) == (numbers["tp"], numbers["fp"], numbers["fn"]), (k, name)
            assert (row.iou, row.pq) == pytest.approx((numbers["iou"], numbers["pq"]), abs=atol), (k, name)


def assert_stq(stq, videos, official, atol):
    scores = stq.result()
    found = [scores.per_video[video] for video in videos]
    assert (scores.all.stq, scores.all.aq, scores.all.sq) == pytest.approx(
        (official["STQ"], official["AQ"], official["IoU"]), abs=atol)
    assert [part.stq for part in found] == pytest.approx(official["STQ_per_seq"], abs=atol)
    assert [part.aq for part in found] == pytest.approx(official["AQ_per_seq"], abs=atol)
    assert [stq.videos[video]["frames"] for video in videos] == official["Length_per_seq"]
    assert not official.unread


def assert_quality(found: Quality, official: dict[str, float], atol: float) -> None:
    assert (100 * found.all, 100 * found.thing, 100 * found.stuff) == pytest.approx(
        (official["all"], official["thing"], official["stuff"]), abs=atol)
