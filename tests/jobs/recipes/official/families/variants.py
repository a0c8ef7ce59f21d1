"""Published rows that are another row with something changed: ablations, and other settings at test time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.association.stitching import StitchingConfig
from model.association.track_links import PartsConfig
from model.cross_clip.vita import VitaTestConfig


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The official facts of `base`, but for the fields that the paper's row changes."""

    base: str
    changes: Mapping[str, Any]
    source: str


_NEAR = "vipseg_video_kmax_r50_near_online"
_OFF = "vipseg_video_kmax_r50_offline"
_TUBE = "vipseg_tube_link_r50"
_TWO = "vipseg_ablation_tube_link_test_clips_of_2"
_KITTI = {"dataset.name": "kitti_step", "stage_one.segmenter.num_classes": 19,
          "stage_one.input.augment.size": (385, 1249), "start weights": "ImageNet and Cityscapes"}
_NETWORK = "stage_one.segmenter.backbone.name"
_AXIAL = {**_KITTI, _NETWORK: "axial_resnet50",
          "stage_one.segmenter.backbone.drop_path": 0.2}
_R101 = {_NETWORK: "resnet101", "start weights": "coco_vita_r101", "start weights of the head": "coco_vita_r101"}
_VITA = "youtube_vis_2019_vita_r50"
_WITHIN = "stage_one.segmenter.within_clip"
_HEAD = "stage_two.head"


def _variants(prefix: str, source: str, *rows: tuple[str, str, Mapping[str, Any]]) -> dict[str, Variant]:
    return {f"{prefix}{name}": Variant(base=base, changes=changes, source=source) for name, base, changes in rows}


def _test(*, window: int | None = None, keep: float | None = None) -> dict[str, Any]:
    """VITA's head with another window, or fewer frame queries, at test time; None: as trained."""
    return {"inference.head": VitaTestConfig(window=window, keep=keep)}


VARIANTS: dict[str, Variant] = {
    **_variants(
        "vipseg_ablation_", "arXiv 2311.18537 table 5",
        ("one_axial_layer", _NEAR, {f"{_WITHIN}.trajectory_layers_per_block": 1}),
        ("full_trajectory", "vipseg_ablation_one_axial_layer", {f"{_WITHIN}.attention": "full"}),
        ("three_axial_layers", _NEAR, {f"{_WITHIN}.trajectory_layers_per_block": 3}),
        ("one_block", _NEAR, {f"{_WITHIN}.blocks": 1}),
        ("three_blocks", _NEAR, {f"{_WITHIN}.blocks": 3}),
        ("sequential", _NEAR, {f"{_WITHIN}.arrangement": "sequential"})),
    **_variants(
        "vipseg_ablation_", "arXiv 2311.18537 table 6",
        ("self_attention", _OFF, {f"{_HEAD}.attention": "self"}),
        ("no_aspp", _OFF, {f"{_HEAD}.aspp": False}),
        ("rates_1_2_5", _OFF, {f"{_HEAD}.aspp_rates": (1, 2, 5)}),
        ("rates_1_3_5", _OFF, {f"{_HEAD}.aspp_rates": (1, 3, 5)}),
        ("six_layers", _OFF, {f"{_HEAD}.layers": 6}),
        ("eight_layers", _OFF, {f"{_HEAD}.layers": 8})),
    **_variants(
        "vipseg_ablation_tube_link_", "arXiv 2303.12782 table 8",
        ("test_clips_of_2", _TUBE, {"inference.clip_frames": 2}),
        ("test_clips_of_4", _TUBE, {"inference.clip_frames": 4}),
        ("test_clips_of_8", _TUBE, {"inference.clip_frames": 8}),
        ("no_link", _TWO, {"stage_one.segmenter.linking.link": False}),
        ("clips_of_1", _TWO, {"stage_one.input.clip_frames": 2}),
        ("clips_of_3", _TWO, {"stage_one.input.clip_frames": 6})),
    **_variants(
        "vipseg_original_video_kmax_", "arXiv 2304.04694 table 6",
        *((f"{backbone}_stitching", f"vipseg_original_video_kmax_{backbone}",
           {"inference.association": StitchingConfig()}) for backbone in ("r50", "convnext_l"))),
    **_variants(
        "kitti_step_video_kmax_", "arXiv 2304.04694 supplement, tables 1 and 3",
        *((f"{ours}{mode}", f"vipseg_original_video_kmax_{theirs}{mode}", changes)
          for ours, theirs, changes in (
              ("r50", "r50", _KITTI | {_NETWORK: "resnet50.tv_in1k"}), ("axial_r50", "r50", _AXIAL),
              ("convnext_l", "convnext_l", _KITTI | {_NETWORK: "convnext_large.fb_in22k_ft_in1k_384"}))
          for mode in ("", "_online"))),
    **_variants(
        "", "arXiv 2206.04403 tables 1 and 7",
        ("coco_vita_r101", "coco_vita_r50", {_NETWORK: "resnet101.tv_in1k"}),
        ("youtube_vis_2019_vita_r101", _VITA, _R101),
        ("youtube_vis_2019_vita_r101_frozen", f"{_VITA}_frozen", _R101)),
    **_variants(
        f"{_VITA}_", "arXiv 2206.04403 table 3",
        ("window_3", _VITA, _test(window=3)),
        ("window_12", _VITA, _test(window=12)),
        ("window_all", _VITA, _test(window=0))),
    **_variants(
        "ovis_vita_r50_", "arXiv 2206.04403 table 5",
        *((f"parts_{frames}_{pairs}", "ovis_vita_r50", {"inference.parts": PartsConfig(clips=frames, pairs=pairs)})
          for frames in (36, 48) for pairs in ("greedy", "hungarian"))),
    **_variants(
        f"{_VITA}_", "arXiv 2206.04403 table 6",
        ("keep_0_75", _VITA, _test(keep=0.75)),
        ("keep_0_50", _VITA, _test(keep=0.5)),
        ("keep_0_25", _VITA, _test(keep=0.25))),
}
