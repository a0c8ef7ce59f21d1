"""Deformable attention: the official start, and laws."""

from __future__ import annotations

import pytest
import torch

from model.layers.deformable_attention import (
    DeformableAttention,
    DeformableLayer,
    reference_points,
)

SHAPES = [(2, 3), (4, 5)]
LENGTH = 26


def test_it_starts_with_eight_directions_and_growing_distances():
    attention = DeformableAttention(16, heads=8, levels=2, points=3)
    offsets = attention.sampling_offsets(torch.randn(16)).reshape(8, 2, 3, 2)
    assert torch.equal(offsets.abs().amax(-1), torch.tensor([1.0, 2, 3]).expand(8, 2, 3))
    torch.testing.assert_close(offsets[:4], -offsets[4:], atol=1e-5, rtol=0)     # opposite heads, opposite directions
    assert not attention.attention_weights(torch.randn(16)).any()


@torch.no_grad()
def test_a_batch_of_two_equals_two_batches_of_one():
    layer = DeformableLayer(16, heads=4, levels=2, ffn=32)
    x = torch.randn(2, LENGTH, 16)
    position = torch.randn(16)
    torch.nn.init.normal_(layer.attention.sampling_offsets.weight)
    options = {"position": position, "reference": reference_points(SHAPES), "shapes": SHAPES}
    alone = torch.cat([layer(x[:1], **options), layer(x[1:], **options)])
    torch.testing.assert_close(layer(x, **options), alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padded_memory_counts_as_zero():
    attention = DeformableAttention(16, heads=4, levels=2)
    query = torch.randn(1, LENGTH, 16)
    padding = torch.zeros(1, LENGTH, dtype=torch.bool)
    padding[:, 10:] = True
    options = {"reference": reference_points(SHAPES), "shapes": SHAPES, "padding": padding}
    memory = torch.randn(1, LENGTH, 16)
    other = torch.randn(1, LENGTH, 16)
    other[:, :10] = memory[:, :10]
    assert torch.equal(attention(query, memory=memory, **options), attention(query, memory=other, **options))


@torch.no_grad()
def test_a_box_of_two_pixels_moves_points_like_a_point_with_one_sampling_point():
    """Offsets of a box are in half its size over the number of points: a pixel for a box of two and one point."""
    attention = DeformableAttention(16, heads=4, levels=2, points=1)
    memory = torch.randn(1, LENGTH, 16)
    query = torch.randn(1, LENGTH, 16)
    points = reference_points(SHAPES)
    sizes = torch.tensor([[2 / width, 2 / height] for height, width in SHAPES]).expand(LENGTH, 2, 2)
    options = {"memory": memory, "shapes": SHAPES}
    torch.testing.assert_close(attention(query, reference=torch.cat([points, sizes], -1), **options),
                               attention(query, reference=points, **options), atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter_and_the_query():
    attention = DeformableAttention(16, heads=4, levels=2)
    memory = torch.randn(1, LENGTH, 16)
    query = torch.randn(1, LENGTH, 16, requires_grad=True)
    torch.nn.init.normal_(attention.sampling_offsets.weight, std=0.1)
    attention(query, reference=reference_points(SHAPES), memory=memory, shapes=SHAPES).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in attention.parameters())
    assert query.grad.abs().sum() > 0


def test_wrong_sizes_are_refused():
    attention = DeformableAttention(16, heads=4, levels=2)
    x = torch.randn(1, 25, 16)
    with pytest.raises(ValueError, match="level after level they hold 26"):
        attention(x, reference=reference_points(SHAPES), memory=x, shapes=SHAPES)
    with pytest.raises(ValueError, match="cannot have 5 heads"):
        DeformableAttention(16, heads=5)


@torch.no_grad()
def test_sampled_values_are_refined_before_the_output_projection():
    layer = DeformableLayer(16, heads=4, levels=2).eval()
    x = torch.randn(1, LENGTH, 16)
    options = {"reference": reference_points(SHAPES), "shapes": SHAPES}
    silent = layer.attention(x, memory=x, refine=torch.zeros_like, **options)
    torch.testing.assert_close(silent, layer.attention.output_proj.bias.expand_as(x))
    options["position"] = torch.zeros(16)
    torch.testing.assert_close(layer(x, refine=lambda sampled: sampled, **options), layer(x, **options))
