"""Axial-trajectory layers: the reach of their passes, and their laws."""

from __future__ import annotations

import pytest
import torch

from model.layers.axial_trajectory import TrajectoryBranch, TrajectoryLayer, TrajectoryStack, track_levels


def layer_of(kind="axial", **changes) -> TrajectoryLayer:
    return TrajectoryLayer(16, heads=4, ffn=32, kind=kind, **changes).eval()


@pytest.mark.parametrize("kind", ["axial", "full"])
@torch.no_grad()
def test_a_batch_of_two_equals_two_batches_of_one(kind):
    layer = layer_of(kind)
    x = torch.randn(2, 3, 4, 5, 16)
    position = torch.randn(3, 4, 5, 16)
    alone = torch.cat([layer(x[:1], position), layer(x[1:], position)])
    torch.testing.assert_close(layer(x, position), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["axial", "full"])
@torch.no_grad()
def test_asking_for_attention_changes_nothing(kind):
    layer = layer_of(kind)
    x = torch.randn(2, 2, 3, 4, 16)
    position = torch.randn(2, 3, 4, 16)
    maps: dict[str, torch.Tensor] = {}
    result = layer(x, position, attention=maps)
    torch.testing.assert_close(result, layer(x, position), atol=1e-5, rtol=1e-5)
    shapes = {"axial": {"height": (8, 4, 6, 2, 3), "width": (6, 4, 8, 2, 4)}, "full": {"space": (2, 4, 24, 2, 12)}}
    assert {name: tuple(one.shape) for name, one in maps.items()} == shapes[kind]


@pytest.mark.parametrize("axis", [1, 2, 3], ids=["time", "height", "width"])
@torch.no_grad()
def test_mirroring_clip_and_positions_mirrors_the_result(axis):
    layer = layer_of()
    x = torch.randn(1, 3, 4, 5, 16)
    position = torch.randn(1, 3, 4, 5, 16)
    mirrored = layer(x.flip(axis), position.flip(axis))
    torch.testing.assert_close(mirrored, layer(x, position).flip(axis), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_pixel_reaches_its_row_and_column_in_one_layer_and_all_pixels_of_all_frames():
    layer = layer_of()
    x = torch.randn(1, 2, 4, 5, 16)
    changed = x.clone()
    changed[0, 0, 0, 0] += 1
    moved = (layer(x, torch.zeros(2, 4, 5, 16)) - layer(changed, torch.zeros(2, 4, 5, 16))).abs().amax(-1)[0]
    assert (moved > 0).all()      # along the column first, then along every row


@torch.no_grad()
def test_values_do_not_depend_on_the_position():
    """With equal scores everywhere the pooled value is the mean of x for all positions."""
    layer = layer_of()
    for attention in layer.passes.values():
        attention.q.weight.zero_()
        attention.q.bias.zero_()
    x = torch.randn(1, 2, 3, 4, 16)
    torch.testing.assert_close(layer(x, torch.randn(2, 3, 4, 16)), layer(x, torch.zeros(2, 3, 4, 16)))


@torch.no_grad()
def test_a_stack_is_its_layers_in_turn():
    stack = TrajectoryStack(16, layers=2, heads=4, ffn=32).eval()
    x = torch.randn(1, 2, 3, 4, 16)
    position = torch.randn(2, 3, 4, 16)
    torch.testing.assert_close(stack(x, position), stack.layers[1](stack.layers[0](x, position), position))


def test_residual_dropout_acts_on_the_passes():
    layer = layer_of(residual_dropout=1.0).train()
    x = torch.randn(1, 2, 3, 4, 16)
    without = layer.attention_norm(x)
    torch.testing.assert_close(layer(x, torch.zeros(2, 3, 4, 16)), layer.ffn_norm(without + layer.ffn(without)))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'diagonal' does not exist"):
        layer_of("diagonal")


@torch.no_grad()
def test_a_branch_starts_near_the_identity_and_adds_the_scaled_stack():
    branch = TrajectoryBranch(16, layers=2, heads=4).eval()
    x = torch.randn(1, 2, 3, 4, 16)
    position = torch.zeros(16)
    torch.testing.assert_close(branch(x, position), x, atol=1e-4, rtol=1e-4)
    branch.scale.copy_(torch.randn(16))
    torch.testing.assert_close(branch(x, position), x + branch.scale * branch.stack(x, position))
    maps: dict[str, torch.Tensor] = {}
    watched = branch(x, position, attention=maps)
    torch.testing.assert_close(watched, branch(x, position), atol=1e-5, rtol=1e-5)
    assert maps.keys() == {"height", "width"}
    alone = TrajectoryBranch(16, start=None, layers=1, heads=4).eval()
    assert torch.equal(alone(x, position), alone.stack(x, position))


@torch.no_grad()
def test_chosen_levels_are_tracked_separately_and_others_stay_unchanged():
    stack = TrajectoryStack(16, layers=1, heads=4).eval()
    shapes = [(2, 3), (4, 6)]
    x = torch.randn(2 * 3, 6 + 24, 16)
    position = torch.randn(3, 2, 3, 16)
    maps: dict[str, torch.Tensor] = {}
    tracked = track_levels(stack, x, shapes, strides=(32, 16), positions={32: position}, frames=3, attention=maps)
    assert torch.equal(tracked[:, 6:], x[:, 6:])
    expected = stack(x[:, :6].reshape(2, 3, 2, 3, 16), position).reshape(6, 6, 16)
    torch.testing.assert_close(tracked[:, :6], expected, atol=1e-5, rtol=1e-5)
    assert maps.keys() == {"stride32.height", "stride32.width"}
