"""The baseline of the benchmark computes what ours computes, with the same weights."""

from __future__ import annotations

import pytest
import torch

from benchmarks.trajectory_attention import Formula, axial_passes, operations, queries
from model.layers import trajectory_attention as module
from model.layers.trajectory_attention import TrajectoryAttention


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("frames", [1, 3])
def test_baseline_and_ours_agree(monkeypatch, fused, frames):
    monkeypatch.setattr(module, "_PLAIN_SCORES", 0)
    attention = TrajectoryAttention(256, 8, fused_qkv=fused)
    x = torch.randn(2, frames * 4, 256)
    torch.testing.assert_close(attention(x, frames=frames), Formula(attention)(x, frames=frames), atol=1e-5, rtol=1e-4)


def test_both_sides_return_results_and_gradients_of_the_same_inputs():
    for ours, baseline in (axial_passes(frames=2, height=3, width=4, device="cpu"), queries(clips=2, device="cpu")):
        for one, other in zip(ours(device="cpu"), baseline(device="cpu"), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_operations_of_a_product_and_of_its_gradients_are_counted():
    one = torch.randn(5, 7, requires_grad=True)
    other = torch.randn(7, 3, requires_grad=True)
    assert operations(lambda: one @ other) == 2 * 5 * 7 * 3
    assert operations(lambda: (one @ other).sum().backward()) == 3 * 2 * 5 * 7 * 3
