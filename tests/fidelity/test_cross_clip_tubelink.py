"""MaXTron's cross-clip head on Tube-Link and its parts equal the public code, through our own name table."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from model.contracts import VideoQueries
from model.converters.cross_clip import MAXTRON_TUBE_LINK, SHARED_HEADS
from model.converters.rename import load_strict, rename
from model.cross_clip.tube_link import TubeLinkHead, TubeLinkHeadConfig
from model.inference.alignment import align_clips
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled
from tests.fidelity.test_cross_clip_kmax import NORMS, temporal_aspp, trajectory_layer


def module(case: Case) -> None:
    a = case.arguments
    head = TubeLinkHead(TubeLinkHeadConfig(
        num_classes=a["num_classes"], embedding=a["mask_channels"], layers=a["num_layers"],
        aspp_kernels=tuple(a["kernel_sizes"]), aspp_rates=tuple(a["atrous_rates"]), aspp_norm=NORMS[a["aspp_norm_fn"]],
        start="official")).eval()
    load_strict(head, rename(case.state, (*MAXTRON_TUBE_LINK, *SHARED_HEADS)))
    clips = range(a["num_clips"])
    queries = torch.stack([case.inputs[f"query.{clip}"][:, 0] for clip in clips])                    # k n c
    assert queries.shape[1] == a["num_queries"]
    order = align_clips(queries)
    aligned = queries.gather(1, order[..., None].expand_as(queries))[None]
    pixels = torch.stack([rearrange(case.inputs[f"mask_features.{clip}"], "t d h w -> d t h w") for clip in clips])
    assert pixels.shape[2] == a["frames_per_clip"]
    layers = head(VideoQueries(queries=aligned, mask_embeddings=aligned, class_logits=aligned))
    for index, prediction in enumerate(layers):
        assert_close_to(case, f"cls.{index}", prediction.class_logits)
        masks = head.mask_logits(prediction.mask_embeddings, pixels[None])
        assert_close_to(case, f"masks.{index}", rearrange(masks, "b k n t h w -> b (k t) n h w"))


PROCEDURES = {"tl_cross_clip": module, "tl_aspp": temporal_aspp, "tl_trajectory_layer": trajectory_layer}


@pytest.mark.parametrize("path", cases("cross_clip_tubelink"), ids=case_id)
@torch.no_grad()
def test_the_head_and_its_parts_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure not in PROCEDURES:
            raise unhandled(case)
        PROCEDURES[case.procedure](case)
