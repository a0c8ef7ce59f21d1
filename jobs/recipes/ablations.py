"""Ablations of MaXTron and Tube-Link on VIPSeg with ResNet-50: an official road with one field changed.

MaXTron (arXiv 2311.18537 v1), table 5 changes the near-online road (46.1 VPQ) and is scored near-online; its row
without any tracking (42.7) is `vipseg_video_kmax_r50`, its row in grey the road itself. Table 6 changes the offline
road (46.7 VPQ, the row in grey and N_c = 4).
Tube-Link (arXiv 2303.12782), table 8: (e) is about clips at test time, (a) and (d) about training, scored with clips of
two frames; six, the best, are the road itself. Its other rows are of other methods: no learned linking at all (34.5
VPQ), targets of one frame, clips that overlap in training, other trackers.
A road whose change comes after stage one reads shards, stage one and cache of the official one (`stage_one_from`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from jobs.config import override
from jobs.recipes import tube_link, vipseg
from jobs.recipes.schema import Recipe

PREFIX = "vipseg_ablation_"
WITHIN_CLIP = "stage_one.segmenter.within_clip"
HEAD = "stage_two.head"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One row of a table: what is changed, and what became of the score. Called, it gives the recipe."""

    name: str                       # after PREFIX
    of: Callable[[], Recipe]        # the recipe it is compared with
    change: str                     # the one field and its value, as --set takes them
    vpq: float                      # published
    table: str
    what: str

    def __call__(self) -> Recipe:
        road = override(self.of(), [self.change])
        mode = "offline" if road.evaluation.mode == "offline" else "near-online"
        source = "" if self.change.startswith("stage_one.") else road.folder or f"runs/{road.name}"
        return replace(road, name=f"{PREFIX}{self.name}", folder="", stage_one_from=source,
                       about=f"VIPSeg val, ResNet-50, {self.what}; expect {self.vpq} VPQ {mode} (table {self.table}), "
                             f"{self.change} in {self.of().name}")


_of_within_clip = partial(Ablation, of=partial(vipseg.near_online, "r50"), table="5")
_of_head = partial(Ablation, of=partial(vipseg.offline, "r50"))

_one_axial_layer = _of_within_clip(name="one_axial_layer", change=f"{WITHIN_CLIP}.trajectory_layers_per_block=1",
                                   vpq=45.4, what="one axial-trajectory layer per block instead of two")

_of_tube_link = partial(Ablation, of=partial(tube_link.panoptic, "vipseg", "r50"), table="8e")
_two_frames = _of_tube_link(name="tube_link_test_clips_of_2", change="evaluation.clip_frames=2", vpq=37.5,
                            what="Tube-Link, clips of two frames at test time")
_of_two_frames = partial(Ablation, of=_two_frames)

ABLATIONS = (
    _one_axial_layer,
    _of_within_clip(name="full_trajectory", of=_one_axial_layer, change=f"{WITHIN_CLIP}.attention=full", vpq=45.3,
                    what="one full trajectory layer per block, over all pixels of the clip"),
    _of_within_clip(name="three_axial_layers", change=f"{WITHIN_CLIP}.trajectory_layers_per_block=3", vpq=45.7,
                    what="three axial-trajectory layers per block"),
    _of_within_clip(name="one_block", change=f"{WITHIN_CLIP}.blocks=1", vpq=44.7, what="one block (N_w = 1)"),
    _of_within_clip(name="three_blocks", change=f"{WITHIN_CLIP}.blocks=3", vpq=45.2, what="three blocks (N_w = 3)"),
    _of_within_clip(name="sequential", change=f"{WITHIN_CLIP}.arrangement=sequential", vpq=45.8,
                    what="two deformable layers, then four axial-trajectory layers"),
    _of_head(name="self_attention", change=f"{HEAD}.attention=self", vpq=46.4, table="6a",
             what="self-attention instead of trajectory attention in the cross-clip head"),
    _of_head(name="no_aspp", change=f"{HEAD}.aspp=false", vpq=46.5, table="6a", what="no temporal ASPP"),
    _of_head(name="rates_1_2_5", change=f"{HEAD}.aspp_rates=[1,2,5]", vpq=46.5, table="6b",
             what="atrous rates 1, 2, 5"),
    _of_head(name="rates_1_3_5", change=f"{HEAD}.aspp_rates=[1,3,5]", vpq=46.4, table="6b",
             what="atrous rates 1, 3, 5"),
    _of_head(name="six_layers", change=f"{HEAD}.layers=6", vpq=46.7, table="6c", what="six layers (N_c = 6)"),
    _of_head(name="eight_layers", change=f"{HEAD}.layers=8", vpq=46.2, table="6c", what="eight layers (N_c = 8)"),
    _two_frames,
    _of_tube_link(name="tube_link_test_clips_of_4", change="evaluation.clip_frames=4", vpq=39.0,
                  what="Tube-Link, clips of four frames at test time"),
    _of_tube_link(name="tube_link_test_clips_of_8", change="evaluation.clip_frames=8", vpq=38.5,
                  what="Tube-Link, clips of eight frames at test time"),
    _of_two_frames(name="tube_link_no_link", change="stage_one.segmenter.linking.link=false", vpq=36.8, table="8a",
                   what="Tube-Link, contrastive loss without linking of queries"),
    _of_two_frames(name="tube_link_clips_of_1", change="stage_one.input.clip_frames=2", vpq=35.6, table="8d",
                   what="Tube-Link, trained on pairs of single frames"),
    _of_two_frames(name="tube_link_clips_of_3", change="stage_one.input.clip_frames=6", vpq=37.0, table="8d",
                   what="Tube-Link, trained on pairs of clips of three frames"),
)

RECIPES: dict[str, Callable[[], Recipe]] = {f"{PREFIX}{ablation.name}": ablation for ablation in ABLATIONS}
