"""Alignment of the queries of consecutive clips equals the public code, by mask embeddings and by decoder queries."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch import Tensor

from model.association.hungarian import align_clips
from model.contracts import ClipPrediction
from model.inference import Aligned, NearOnline
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled
from tests.model.inference.ways import made


@pytest.mark.parametrize("path", cases("clip_matching"), ids=case_id)
def test_alignment_by_mask_embeddings_equals_the_reference(path):
    with load_case(path) as case:
        if case.procedure != "clip_matching":
            raise unhandled(case)
        compare_orders(case, case.inputs["embeddings"])                             # k n d


@pytest.mark.parametrize("path", cases("clip_matching_tubelink"), ids=case_id)
def test_alignment_by_decoder_queries_and_the_video_it_gives_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure != "tl_clip_matching":
            raise unhandled(case)
        tubes = [tube(case, index) for index in range(case.arguments["num_tubes"])]
        compare_orders(case, torch.cat([clip.queries for clip in tubes]))
        video = Video()
        clips = [(clip, clip.mask_logits.shape[2]) for clip in tubes]
        made(clips, Aligned([NearOnline({"tracks": lambda: video})]), classes=tubes[0].class_logits.shape[-1] - 1)
        assert_close_to(case, "cls", video.class_logits)
        assert_close_to(case, "masks", rearrange(torch.cat(video.masks, 1), "n t h w -> t n h w"))


def compare_orders(case: Case, embeddings: Tensor) -> None:
    """embeddings: k n c of all clips."""
    orders = align_clips(embeddings)
    assert_close_to(case, "permutation", orders[1:])
    assert_close_to(case, "aligned", torch.stack([clip[order] for clip, order in zip(embeddings, orders)]))


def tube(case: Case, index: int) -> ClipPrediction:
    """The mask embeddings are useless, so that only the queries can align the tubes."""
    queries, class_logits, masks = (case.inputs[f"tube.{index}.{name}"] for name in ("query", "cls", "masks"))
    return ClipPrediction(queries=queries[None], class_logits=class_logits[None],
                          mask_logits=rearrange(masks, "t n h w -> 1 n t h w"),
                          mask_embeddings=torch.zeros(1, len(queries), 1), alignment=queries[None],
                          pixel_features=torch.empty(0))


class Video:
    """A merger that keeps its input."""

    def __init__(self) -> None:
        self.masks: list[Tensor] = []                                               # of n t h w

    def add(self, mask_logits: Tensor) -> None:
        self.masks.append(mask_logits)

    def finish(self, class_logits: Tensor) -> None:
        self.class_logits = class_logits
