"""One door to all data sets."""

from __future__ import annotations

import pytest

from pipeline.datasets import DatasetConfig, open_dataset
from pipeline.datasets.vipseg import VipSeg
from pipeline.datasets.youtube_vis import YouTubeVis


def test_a_name_picks_its_reader(panoptic_world, instance_world):
    panoptic = open_dataset(DatasetConfig(name="vipseg", root=str(panoptic_world), split="val", layout="raw"))
    assert isinstance(panoptic, VipSeg)
    assert (panoptic.layout, panoptic.video_ids()) == ("raw", ["val_00000"])
    instance = open_dataset(DatasetConfig(name="youtube_vis", root=str(instance_world), split="valid"))
    assert isinstance(instance, YouTubeVis)
    assert instance.video_ids() == ["valid_00000"]


@pytest.mark.parametrize(("change", "message"), [
    ({"name": "vipsegg"}, "choose one of vipseg"), ({"layout": "720p"}, "choose one of auto, rgb, raw"),
    ({"root": ""}, "needs root"), ({"name": "youtube_vis_2019", "layout": "raw"}, "for vipseg only")])
def test_a_wrong_setting_is_refused_with_its_cure(change, message):
    with pytest.raises(ValueError, match=message):
        DatasetConfig(**{"name": "vipseg", "root": "somewhere", **change})
