"""Ablations of MaXTron and Tube-Link on VIPSeg with ResNet-50: an official run with one field changed.

MaXTron (arXiv 2311.18537 v1), table 5 changes the near-online run (46.1 VPQ) and is scored near-online; its row
without any tracking (42.7) is `vipseg_video_kmax_r50`, its row in grey the run itself. Table 6 changes the offline
run (46.7 VPQ, the row in grey and N_c = 4).
Tube-Link (arXiv 2303.12782), table 8: (e) is about clips at test time, (a) and (d) about training, scored with clips of
two frames; six, the best, are the run itself. The rows of (b), (c) and (f), those of (a) without any learned linking
and that of (d) with clips that overlap are settings in `jobs/reproducing/papers.toml`.
A run whose change comes after stage one reads shards, stage one and cache of the official one (`stage_one_from`).
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
    base: Callable[[], Recipe]      # the recipe it is compared with
    change: str                     # the one field and its value, as --set takes them
    vpq: float                      # published
    table: str
    summary: str

    def __call__(self) -> Recipe:
        base = override(self.base(), [self.change])
        mode = "offline" if base.evaluation.mode == "offline" else "near-online"
        source = "" if self.change.startswith("stage_one.") else base.folder or f"runs/{base.name}"
        return replace(base, name=f"{PREFIX}{self.name}", folder="", stage_one_from=source,
                       about=f"VIPSeg val, ResNet-50, {self.summary}; expect {self.vpq} VPQ {mode} (table "
                             f"{self.table}), {self.change} in {self.base().name}")


_of_within_clip = partial(Ablation, base=partial(vipseg.near_online, "r50"), table="5")
_of_head = partial(Ablation, base=partial(vipseg.offline, "r50"))

_one_axial_layer = _of_within_clip(name="one_axial_layer", change=f"{WITHIN_CLIP}.trajectory_layers_per_block=1",
                                   vpq=45.4, summary="one axial-trajectory layer per block instead of two")

_of_tube_link = partial(Ablation, base=partial(tube_link.panoptic, "vipseg", "r50"), table="8e")
_two_frames = _of_tube_link(name="tube_link_test_clips_of_2", change="inference.clip_frames=2", vpq=37.5,
                            summary="Tube-Link, clips of two frames at test time")
_of_two_frames = partial(Ablation, base=_two_frames)

ABLATIONS = (
    _one_axial_layer,
    _of_within_clip(name="full_trajectory", base=_one_axial_layer, change=f"{WITHIN_CLIP}.attention=full", vpq=45.3,
                    summary="one full trajectory layer per block, over all pixels of the clip"),
    _of_within_clip(name="three_axial_layers", change=f"{WITHIN_CLIP}.trajectory_layers_per_block=3", vpq=45.7,
                    summary="three axial-trajectory layers per block"),
    _of_within_clip(name="one_block", change=f"{WITHIN_CLIP}.blocks=1", vpq=44.7, summary="one block (N_w = 1)"),
    _of_within_clip(name="three_blocks", change=f"{WITHIN_CLIP}.blocks=3", vpq=45.2, summary="three blocks (N_w = 3)"),
    _of_within_clip(name="sequential", change=f"{WITHIN_CLIP}.arrangement=sequential", vpq=45.8,
                    summary="two deformable layers, then four axial-trajectory layers"),
    _of_head(name="self_attention", change=f"{HEAD}.attention=self", vpq=46.4, table="6a",
             summary="self-attention instead of trajectory attention in the cross-clip head"),
    _of_head(name="no_aspp", change=f"{HEAD}.aspp=false", vpq=46.5, table="6a", summary="no temporal ASPP"),
    _of_head(name="rates_1_2_5", change=f"{HEAD}.aspp_rates=[1,2,5]", vpq=46.5, table="6b",
             summary="atrous rates 1, 2, 5"),
    _of_head(name="rates_1_3_5", change=f"{HEAD}.aspp_rates=[1,3,5]", vpq=46.4, table="6b",
             summary="atrous rates 1, 3, 5"),
    _of_head(name="six_layers", change=f"{HEAD}.layers=6", vpq=46.7, table="6c", summary="six layers (N_c = 6)"),
    _of_head(name="eight_layers", change=f"{HEAD}.layers=8", vpq=46.2, table="6c", summary="eight layers (N_c = 8)"),
    _two_frames,
    _of_tube_link(name="tube_link_test_clips_of_4", change="inference.clip_frames=4", vpq=39.0,
                  summary="Tube-Link, clips of four frames at test time"),
    _of_tube_link(name="tube_link_test_clips_of_8", change="inference.clip_frames=8", vpq=38.5,
                  summary="Tube-Link, clips of eight frames at test time"),
    _of_two_frames(name="tube_link_no_link", change="stage_one.segmenter.linking.link=false", vpq=36.8, table="8a",
                   summary="Tube-Link, contrastive loss without linking of queries"),
    _of_two_frames(name="tube_link_clips_of_1", change="stage_one.input.clip_frames=2", vpq=35.6, table="8d",
                   summary="Tube-Link, trained on pairs of single frames"),
    _of_two_frames(name="tube_link_clips_of_3", change="stage_one.input.clip_frames=6", vpq=37.0, table="8d",
                   summary="Tube-Link, trained on pairs of clips of three frames"),
)

RECIPES: dict[str, Callable[[], Recipe]] = {f"{PREFIX}{ablation.name}": ablation for ablation in ABLATIONS}
