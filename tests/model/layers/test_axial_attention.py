"""Axial attention: the positions it reaches, and its limits."""

import pytest
import torch

from model.layers.axial_attention import MAX_LENGTH, AxialAttention, AxialAttention2d, relative_positions
from model.layers.convolution import BatchNormConfig


def attention2d() -> AxialAttention2d:
    return AxialAttention2d(6, key_depth=16, value_depth=32, heads=4, batch_norm=BatchNormConfig()).eval()


def test_relative_rows_depend_on_the_offset_from_query_to_key_alone():
    table = torch.arange(2 * MAX_LENGTH - 1.0)[:, None]
    rows = relative_positions(table, 5)[..., 0]
    key, query = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="xy")
    assert torch.equal(rows, (key - query + MAX_LENGTH - 1).float())


def test_the_longest_axis_is_accepted_and_one_more_is_refused():
    table = torch.zeros(2 * MAX_LENGTH - 1, 1)
    assert relative_positions(table, MAX_LENGTH).shape == (MAX_LENGTH, MAX_LENGTH, 1)
    with pytest.raises(ValueError, match="256 positions"):
        relative_positions(table, MAX_LENGTH + 1)


def test_one_instance_takes_any_size():
    attention = attention2d()
    assert attention(torch.randn(2, 6, 3, 5)).shape == (2, 32, 3, 5)
    assert attention(torch.randn(1, 6, 7, 4)).shape == (1, 32, 7, 4)


def test_a_batch_of_two_equals_two_batches_of_one():
    attention = attention2d()
    x = torch.randn(2, 6, 4, 5)
    torch.testing.assert_close(attention(x), torch.cat([attention(x[:1]), attention(x[1:])]), atol=1e-5, rtol=1e-5)


def test_the_height_pass_reaches_one_column_and_both_passes_reach_everything():
    attention = attention2d()
    x = torch.randn(1, 6, 4, 5, requires_grad=True)
    attention.height(x[..., 2]).sum().backward()
    assert x.grad[..., 2].abs().sum() > 0
    assert x.grad[..., [0, 1, 3, 4]].abs().sum() == 0
    x.grad = None
    attention(x)[0, :, 1, 2].sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()


def test_position_matters_for_equal_content():
    attention = AxialAttention(6, key_depth=8, value_depth=16, heads=4, batch_norm=BatchNormConfig()).eval()
    same = torch.randn(1, 6, 1).expand(1, 6, 5)
    out = attention(same)
    assert not torch.allclose(out[..., 0], out[..., 4])


def test_depths_that_do_not_divide_into_heads_are_refused():
    with pytest.raises(ValueError, match="5 heads"):
        AxialAttention(6, key_depth=8, value_depth=16, heads=5, batch_norm=BatchNormConfig())
