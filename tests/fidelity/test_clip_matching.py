"""Alignment of consecutive clips by mask embeddings equals the public code."""

from __future__ import annotations

import pytest
import torch

from model.inference.alignment import align_clips
from tests.fidelity.cases import assert_close_to, case_id, cases, load_case, unhandled


@pytest.mark.parametrize("path", cases("clip_matching"), ids=case_id)
def test_alignment_by_mask_embeddings_equals_the_reference(path):
    with load_case(path) as case:
        if case.procedure != "clip_matching":
            raise unhandled(case)
        embeddings = case.inputs["embeddings"]                                      # k n d
        orders = align_clips(embeddings)
        assert_close_to(case, "permutation", orders[1:])
        assert_close_to(case, "aligned", torch.stack([clip[order] for clip, order in zip(embeddings, orders)]))
