"""Track AP and AR give the numbers of the YouTube-VIS API, files read through the project's own readers."""

import json
import math

import pytest

from model.contracts import Track, Tracks
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.metrics.track_ap import TrackAP
from pipeline.metrics.track_ap_scores import AREAS, CAPS
from pipeline.predictions import read_listed_videos, read_results
from tests.fidelity.cases import Ledger, case_folders, case_id

ABSENT = -1.0    # the API's word for "no such object"


@pytest.mark.parametrize("folder", case_folders("metric_youtube_vis"), ids=case_id)
def test_track_ap_equals_the_youtube_vis_api(folder, tmp_path):
    case = json.loads((folder / "expected.json").read_text())
    expected = Ledger(case["expected"])
    atol = case["tolerance"]["atol"]
    dataset = laid_out(folder / "ground_truth.json", tmp_path)
    results = read_results(folder / "results.json", videos=read_listed_videos(folder / "ground_truth.json"),
                           classes=dataset.classes)
    metric = TrackAP(dataset.classes)
    for video in dataset.video_ids():
        metric.update(results[video], truth_of(dataset, video))
    scores = metric.result()

    assert [list(map(float, limits)) for limits in AREAS.values()] == expected["area_ranges"]
    assert list(CAPS) == expected["max_detections"]
    per_class = {str(info.dataset_id): row.measures["ap"] for info, row in zip(dataset.classes.classes,
                                                                              scores.per_class)}
    for name, official in expected["AP_per_class"].items():
        assert_same(per_class[name], official, atol)
    assert {name for name, ap in per_class.items() if ap == ap} == {
        name for name, ap in expected["AP_per_class"].items() if ap != ABSENT}
    for name in expected:
        if name not in ("area_ranges", "max_detections", "AP_per_class"):
            assert_same(scores.of(name.lower()), expected[name], atol)


def assert_same(found, official, atol):
    assert (ABSENT if math.isnan(found) else found) == pytest.approx(official, abs=atol)


def laid_out(annotations, folder):
    """The annotations as a split on disk, with a file for every frame; nobody decodes them."""
    (folder / "valid.json").write_bytes(annotations.read_bytes())
    for video in json.loads(annotations.read_text())["videos"]:
        for name in video["file_names"]:
            image = folder / "valid" / "JPEGImages" / name
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
    return YouTubeVis(str(folder), split="valid")


def truth_of(dataset, video):
    record = dataset.read(video)
    return Tracks(video_id=video, frame_names=tuple(frame.name for frame in record.frames),
                  size=(record.height, record.width),
                  tracks=tuple(Track(class_index=segment.class_index, is_crowd=segment.is_crowd,
                                     masks=tuple(dict(frame.masks[segment.id]) if segment.id in frame.masks
                                                 else None for frame in record.frames))
                               for segment in record.segments))
