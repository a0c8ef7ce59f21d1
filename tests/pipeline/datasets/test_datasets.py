"""`open_dataset` opens every data set by name."""

from __future__ import annotations

from typing import get_args

import pytest

from pipeline.datasets import OFFICIAL_CLASSES, WITHOUT_CLASSES, DatasetConfig, DatasetName, open_dataset
from pipeline.datasets.kitti_step import KittiStep
from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.vipseg import VipSeg
from pipeline.datasets.vspw import Vspw
from pipeline.datasets.youtube_vis import YouTubeVis


def test_a_name_picks_its_reader(panoptic_world, instance_world):
    panoptic = open_dataset(DatasetConfig(name="vipseg", root=str(panoptic_world), split="val", layout="raw"))
    assert isinstance(panoptic, VipSeg)
    assert (panoptic.layout, panoptic.video_ids()) == ("raw", ["val_00000"])
    instance = open_dataset(DatasetConfig(name="youtube_vis", root=str(instance_world), split="valid"))
    assert isinstance(instance, YouTubeVis)
    assert instance.video_ids() == ["valid_00000"]


@pytest.mark.parametrize(("name", "reader"), [("vspw", Vspw), ("kitti_step", KittiStep)])
def test_map_data_sets_are_opened_by_name(tmp_path, name, reader):
    world = SyntheticConfig(videos_train=0, videos_val=1, frames=1, height=32, width=32, layout=name)
    root = write_world(tmp_path / "world", world)
    dataset = open_dataset(DatasetConfig(name=name, root=str(root), split="val"))
    assert isinstance(dataset, reader)
    assert dataset.video_ids() == ["val_00000"]


def test_official_classes_are_those_of_the_data_set_named():
    counts = {name: (len(table), int(table.is_thing.sum())) for name, table in OFFICIAL_CLASSES.items()}
    assert counts == {
        "vipseg": (124, 58), "vspw": (124, 0), "kitti_step": (19, 2), "ovis": (25, 25), "coco_panoptic": (133, 80),
        "coco_instance": (80, 80), **{f"youtube_vis_{year}": (40, 40) for year in (2019, 2021, 2022)}}
    assert all(table.name == name for name, table in OFFICIAL_CLASSES.items())
    assert set(OFFICIAL_CLASSES) == set(get_args(DatasetName)) - set(WITHOUT_CLASSES)


@pytest.mark.parametrize(("change", "message"), [
    ({"name": "vipsegg"}, "choose one of vipseg"), ({"layout": "720p"}, "choose one of auto, rgb, raw"),
    ({"root": ""}, "needs dataset.root"), ({"name": "youtube_vis_2019", "layout": "raw"}, "for vipseg only")])
def test_a_wrong_setting_is_refused_with_its_cure(change, message):
    with pytest.raises(ValueError, match=message):
        DatasetConfig(**{"name": "vipseg", "root": "somewhere", **change})
