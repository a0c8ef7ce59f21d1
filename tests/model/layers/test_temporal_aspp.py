"""Temporal-ASPP along the clips of a query."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from model.layers.temporal_aspp import TemporalASPP


@pytest.mark.parametrize("clips", [1, 2, 7])
@pytest.mark.parametrize(("norm", "out_dim"), [("ln", None), ("bn", None), (None, 12)])
def test_any_number_of_clips_is_kept_and_sequences_do_not_mix(clips, norm, out_dim):
    block = TemporalASPP(8, norm=norm, out_dim=out_dim).eval()
    x = torch.randn(3, 8, clips)
    assert block(x).shape == (3, out_dim or 8, clips)
    assert_close(block(x), torch.cat([block(one[None]) for one in x]))


def test_a_kernel_of_even_size_reaches_one_clip_further_ahead():
    block = TemporalASPP(8, kernels=(2, 4), rates=(1, 1)).eval()
    x = torch.randn(1, 8, 11)
    other = x.clone()
    other[..., 5] += 1
    heard = (block(x) - block(other)).abs().amax((0, 1)) > 1e-6
    assert heard.nonzero().flatten().tolist() == [3, 4, 5, 6]


def test_the_ends_repeat_so_a_constant_sequence_stays_constant():
    out = TemporalASPP(8).eval()(torch.randn(2, 8, 1).expand(2, 8, 6))
    assert_close(out, out[..., :1].expand_as(out))


def test_a_clip_reaches_as_far_as_the_largest_rate_and_no_farther():
    block = TemporalASPP(8, rates=(1, 2, 3)).eval()
    x = torch.randn(1, 8, 11)
    other = x.clone()
    other[..., 5] += 1
    heard = (block(x) - block(other)).abs().amax((0, 1)) > 1e-6
    assert heard.nonzero().flatten().tolist() == [2, 3, 4, 5, 6, 7, 8]


def test_reversed_kernels_on_reversed_time_give_the_reversed_result():
    block = TemporalASPP(8).eval()
    x = torch.randn(2, 8, 9)
    forwards = block(x)
    with torch.no_grad():
        for convolution in block.convolutions:
            convolution.weight.copy_(convolution.weight.flip(-1))
    assert_close(block(x.flip(-1)).flip(-1), forwards)
