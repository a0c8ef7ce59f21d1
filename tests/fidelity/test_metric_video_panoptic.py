"""VPQ gives the numbers of the official VIPSeg script, files read through the project's own reader."""

import json

import pytest

from model.labels import ClassInfo, ClassTable
from pipeline.metrics.vpq import VPQ
from pipeline.metrics.vpq_scores import Quality
from pipeline.predictions import Predictions
from tests.fidelity.cases import case_folders, case_id


@pytest.mark.parametrize("folder", case_folders("metric_video_panoptic"), ids=case_id)
def test_vpq_equals_the_official_script(folder):
    case = json.loads((folder / "expected.json").read_text())
    expected, atol = case["expected"], case["tolerance"]["atol"]
    categories = json.loads((folder / "panoptic_gt.json").read_text())["categories"]
    classes = ClassTable("case", tuple(ClassInfo(row["id"], row["name"], bool(row["isthing"]), tuple(row["color"]))
                                       for row in categories))
    truth = Predictions(annotations=folder / "panoptic_gt.json", maps=folder / "panomasksRGB", classes=classes)
    predictions = Predictions(annotations=folder / "prediction" / "pred.json", classes=classes,
                              maps=folder / "prediction" / "pan_pred")
    vpq = VPQ(classes, windows=[int(k) for k in expected["vpq"]])
    for video in truth:
        vpq.update(predictions[video], truth[video])
    scores = vpq.result()

    for k, official in expected["vpq"].items():
        assert_quality(scores.of(int(k)), official, atol)
        rows = {str(info.dataset_id): row for info, row in zip(classes.classes, scores.per_class[int(k)])}
        occurring = {name for name, row in official["per_class"].items() if row["tp"] + row["fp"] + row["fn"]}
        assert {name for name, row in rows.items() if row.occurs} == occurring
        for name in occurring:
            row, numbers = rows[name], official["per_class"][name]
            assert (row.tp, row.fp, row.fn) == (numbers["tp"], numbers["fp"], numbers["fn"]), (k, name)
            assert (row.iou, row.pq) == pytest.approx((numbers["iou"], numbers["pq"]), abs=atol), (k, name)
    means = {name: value for name, value in expected.items() if name.startswith("vpq_mean_")}
    assert means
    for name, official in means.items():
        windows = tuple(int(k) for k in name.removeprefix("vpq_mean_").split("_"))
        assert_quality(scores.mean(windows), official, atol)


def assert_quality(found: Quality, official: dict[str, float], atol: float) -> None:
    assert (100 * found.all, 100 * found.thing, 100 * found.stuff) == pytest.approx(
        (official["all"], official["thing"], official["stuff"]), abs=atol)
