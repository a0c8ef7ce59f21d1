"""Tube-Link's learned linking: independence of clips, order, and the official pairing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from model.association.tube_linking import TubeLinking, TubeLinkingConfig
from model.contracts import ClipPrediction


@pytest.fixture
def linking():
    torch.manual_seed(0)
    return TubeLinking(TubeLinkingConfig(dim=16, heads=4, ffn=32)).eval()


def test_a_batch_equals_its_clips_one_by_one(linking):
    queries = torch.randn(2, 5, 16)
    reference = torch.randn(2, 7, 16)
    alone = [linking(queries[item:item + 1], reference[item:item + 1]) for item in range(2)]
    assert_close(linking(queries, reference), torch.cat(alone))


def test_the_order_of_the_clip_before_matters_only_officially(linking):
    queries = torch.randn(1, 5, 16)
    reference = torch.randn(1, 5, 16)
    order = torch.tensor([4, 2, 0, 1, 3])
    assert_close(linking(queries, reference[:, order]), linking(queries, reference))
    official = linking(queries, reference, official_compat=True)
    assert not torch.allclose(linking(queries, reference[:, order], official_compat=True), official)
    other = reference.clone()
    other[:, 1:] = 0                                # query 0 attends to reference query 0 only
    assert_close(linking(queries, other, official_compat=True)[:, 0], official[:, 0])
    assert not torch.allclose(linking(queries, other)[:, 0], linking(queries, reference)[:, 0])


def test_official_pairs_need_as_many_queries_before_as_now(linking):
    with pytest.raises(ValueError, match="pairs queries by their index"):
        linking(torch.randn(1, 5, 16), torch.randn(1, 4, 16), official_compat=True)


def test_without_link_queries_are_unchanged_and_have_embeddings():
    linking = TubeLinking(TubeLinkingConfig(dim=16, heads=4, link=False))
    queries = torch.randn(1, 5, 16)
    assert linking(queries, torch.randn(1, 5, 16)) is queries
    assert linking.embeddings(queries).shape == (1, 5, 16)
    assert {name.split(".")[0] for name in linking.state_dict()} == {"embed", "head"}


def test_without_a_head_queries_are_compared_as_they_are():
    linking = TubeLinking(TubeLinkingConfig(dim=16, heads=4, link=False, head=False))
    queries = torch.randn(1, 5, 16)
    assert linking.embeddings(linking(queries, queries.flip(1))) is queries
    assert not linking.state_dict()


@pytest.mark.parametrize("reads", ["queries", "regions"])
def test_tokens_follow_the_queries_or_the_pixels_in_the_boxes_of_the_masks(reads):
    linking = TubeLinking(TubeLinkingConfig(dim=16, heads=4, reads=reads), channels=8)
    clip = ClipPrediction(class_logits=torch.zeros(1, 5, 3), mask_logits=torch.randn(1, 5, 2, 4, 6),
                          queries=torch.randn(1, 5, 16), mask_embeddings=torch.zeros(1, 5, 8),
                          pixel_features=torch.randn(1, 8, 2, 4, 6))
    tokens = linking.tokens(clip)
    assert tokens.shape == (1, 5, 16)
    other_queries = linking.tokens(replace(clip, queries=torch.randn(1, 5, 16)))
    other_pixels = linking.tokens(replace(clip, pixel_features=torch.randn(1, 8, 2, 4, 6)))
    assert torch.equal(other_queries, tokens) == (reads == "regions")
    assert torch.equal(other_pixels, tokens) == (reads == "queries")


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match=r"multiple of linking\.heads"):
        TubeLinkingConfig(dim=30, heads=8)
    with pytest.raises(ValueError, match=r"linking\.reads='boxes'"):
        TubeLinkingConfig(reads="boxes")
