"""Alignment of queries between clips."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from model.inference.alignment import QueryAligner, align_clips


def shuffled_video(clips=5, queries=9, channels=16, noise=0.05):
    """The same objects in every clip, each time changed a little and reordered. Returns embeddings, orders."""
    objects = torch.randn(queries, channels)
    orders = torch.stack([torch.randperm(queries) for _ in range(clips)])
    drift = noise * torch.randn(clips, queries, channels).cumsum(0)
    return torch.stack([(objects + drift[k])[order] for k, order in enumerate(orders)]), orders


def test_alignment_undoes_any_permutation():
    embeddings, orders = shuffled_video()
    for aligned, order in zip(align_clips(embeddings), orders):
        assert torch.equal(order[aligned], orders[0])


def test_each_clip_is_compared_with_the_aligned_clip_before_it_and_not_with_the_first():
    """Two embeddings turn by 90 degrees, so the first object ends like the second one started."""
    turn = torch.linspace(0, torch.pi / 2, 13)
    first = torch.stack([turn.cos(), turn.sin()], -1)
    second = torch.stack([-turn.sin(), turn.cos()], -1)
    embeddings = torch.stack([first, second], 1)                       # k n d
    assert torch.equal(align_clips(embeddings), torch.tensor([[0, 1]] * 13))


def test_the_length_of_an_embedding_does_not_matter():
    embeddings, _ = shuffled_video()
    scaled = embeddings * torch.rand(5, 9, 1).add(0.1)
    assert torch.equal(align_clips(embeddings), align_clips(scaled))


def test_stepping_equals_aligning_all_at_once_and_keeps_one_clip_only():
    embeddings, _ = shuffled_video()
    aligner = QueryAligner()
    assert torch.equal(torch.stack([aligner.step(clip) for clip in embeddings]), align_clips(embeddings))
    held = [value for value in vars(aligner).values() if isinstance(value, torch.Tensor)]
    assert [tuple(value.shape) for value in held] == [(9, 16)]


def test_no_gradient_flows_and_zero_embeddings_are_harmless():
    embeddings = torch.zeros(2, 4, 8, requires_grad=True)
    orders = align_clips(embeddings)
    assert not orders.requires_grad
    assert_close(orders.sort(-1).values, torch.arange(4).expand(2, 4))


def test_broken_embeddings_and_changing_sizes_are_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        QueryAligner().step(torch.full((3, 4), float("nan")))
    aligner = QueryAligner()
    aligner.step(torch.randn(3, 4))
    with pytest.raises(ValueError, match="one segmenter"):
        aligner.step(torch.randn(5, 4))
