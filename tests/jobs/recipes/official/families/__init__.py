"""The tables of all families, and the recipes that no released file describes."""

from tests.jobs.recipes.official.families import (
    coco_kmax,
    coco_mask2former,
    tube_link,
    video_kmax,
    vipseg,
    vita,
    youtube_vis,
)
from tests.jobs.recipes.official.families.variants import VARIANTS

FAMILIES = {
    "COCO: kMaX-DeepLab": coco_kmax, "COCO: Mask2Former": coco_mask2former, "VIPSeg: MaXTron on Video-kMaX": vipseg,
    "COCO and VIPSeg: Video-kMaX itself": video_kmax,
    "YouTube-VIS and OVIS: Tube-Link and MaXTron": youtube_vis,
    "Panoptic and semantic video: Tube-Link": tube_link, "YouTube-VIS and OVIS: VITA": vita}
TABLES = [table for family in FAMILIES.values() for table in family.TABLES]

# No file of their own was released; their tables hold the nearest file, or the paper.
WITHOUT_A_FILE = {
    "vipseg_video_kmax_r50 vipseg_video_kmax_convnext_l": "the paper's baseline RP; its schedule is not published",
    "youtube_vis_2022_tube_link_r50 youtube_vis_2022_tube_link_swin_l": "the paper trains as on YouTube-VIS 2021",
    "ovis_tube_link_swin_l": "a row that MaXTron's authors reproduced",
    "kitti_step_tube_link_*": "only the data file was released",
    "kitti_step_video_kmax_*": "only the reader of the data was released; the rest is that of VIPSeg's files",
    "coco_vita_r101 youtube_vis_2019_vita_r101*": "the settings are those of ResNet-50",
    "vipseg_vss_tube_link_*": "the one released file of this name, Swin-L's, reads VSPW: "
                              "`vspw_2_frames_tube_link_swin_l`",
}
# Recipes of our own beside the official ones.
OURS_ALONE = {
    "*_near_online_start": "an offline head that starts at the near-online result",
    "vipseg_original_video_kmax_*_hungarian": "Video-kMaX linked as MaXTron links",
}

__all__ = ["FAMILIES", "TABLES", "VARIANTS", "OURS_ALONE", "WITHOUT_A_FILE"]
