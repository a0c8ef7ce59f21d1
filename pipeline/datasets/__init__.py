"""Readers of data sets. To add one, write a file here, and add a name to `DatasetName` and a case to `open_dataset`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from model.labels import ClassTable
from pipeline.datasets import classes_coco, classes_vipseg, classes_vspw, classes_youtube_vis, kitti_step
from pipeline.datasets.coco import CocoInstance, CocoPanoptic
from pipeline.datasets.coco_as_videos import COUNTERPARTS
from pipeline.datasets.cvat import Cvat
from pipeline.datasets.davis import Davis
from pipeline.datasets.kitti_step import KittiStep
from pipeline.datasets.labelme import LabelMe
from pipeline.datasets.vipseg import VipSeg
from pipeline.datasets.vspw import Vspw
from pipeline.datasets.youtube_vis import YouTubeVis
from pipeline.records import Dataset

DatasetName = Literal["vipseg", "youtube_vis", "youtube_vis_2019", "youtube_vis_2021", "youtube_vis_2022", "ovis",
                      "vspw", "kitti_step", "coco_panoptic", "coco_instance", "cvat", "labelme", "davis"]
Layout = Literal["auto", "rgb", "raw"]

# Classes as released; your own data in the same layout may have others. Names of layouts that have no official classes
# are in `WITHOUT_CLASSES`.
WITHOUT_CLASSES = ("youtube_vis", "cvat", "labelme", "davis")
OFFICIAL_CLASSES: dict[str, ClassTable] = {
    "vipseg": classes_vipseg.TABLE, "vspw": classes_vspw.TABLE, "kitti_step": kitti_step.TABLE,
    **classes_youtube_vis.TABLES, **classes_coco.TABLES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """Which data set to read, where it lies, and which split. Most readers take your own data too; see docs/data.md."""

    name: DatasetName
    root: str                   # the folder that docs/data.md shows
    split: str = "train"        # train, val, test; YouTube-VIS, OVIS: train, valid, test
    classes: str = ""           # coco_instance only: the video data set to whose classes COCO's are mapped
    layout: Layout = "auto"     # VIPSeg only. rgb: panomasksRGB with json; raw: panomasks; auto: rgb if it exists

    def __post_init__(self) -> None:
        for field, value, allowed in (("name", self.name, get_args(DatasetName)),
                                      ("layout", self.layout, get_args(Layout))):
            if value not in allowed:
                raise ValueError(f"dataset {field} {value!r} is unknown; choose one of {', '.join(allowed)}")
        if not self.root or not self.split:
            raise ValueError(f"dataset {self.name!r} needs dataset.root and dataset.split, got {self.root!r} and "
                             f"{self.split!r}; docs/data.md shows the folder")
        if self.classes and (self.name != "coco_instance" or self.classes not in COUNTERPARTS):
            raise ValueError(f"dataset.classes={self.classes!r} is for coco_instance only, one of "
                             f"{', '.join(COUNTERPARTS)}; leave it out for {self.name!r}")
        if self.layout != "auto" and self.name != "vipseg":
            raise ValueError(f"dataset.layout={self.layout!r} is for vipseg only; leave it out for {self.name!r}")


def open_dataset(config: DatasetConfig) -> Dataset:
    """The reader of a data set. Raises `FileNotFoundError` when the root or the split does not exist."""
    match config.name:
        case "vipseg":
            return VipSeg(config.root, split=config.split, layout=config.layout)
        case "vspw":
            return Vspw(config.root, split=config.split)
        case "kitti_step":
            return KittiStep(config.root, split=config.split)
        case "coco_panoptic":
            return CocoPanoptic(config.root, split=config.split)
        case "coco_instance":
            return CocoInstance(config.root, split=config.split, classes=config.classes)
        case "cvat":
            return Cvat(config.root, split=config.split)
        case "labelme":
            return LabelMe(config.root, split=config.split)
        case "davis":
            return Davis(config.root, split=config.split)
        case _:
            return YouTubeVis(config.root, split=config.split, name=config.name)
