"""Trajectory attention: the fast path equals the formula, and both obey its laws."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

from model.layers import trajectory_attention as module
from model.layers.trajectory_attention import TrajectoryAttention


@pytest.fixture(autouse=True)
def _always_the_fast_path(monkeypatch):
    monkeypatch.setattr(module, "_PLAIN_SCORES", 0)


def value_and_gradients(layer, inputs, weight, **options) -> list[torch.Tensor]:
    result = layer(*inputs, **options)
    return [result, *torch.autograd.grad((result * weight).sum(), [*inputs, *layer.parameters()])]


@pytest.mark.parametrize("chunk", [1, 3000, 4 << 20], ids=["one-row", "a-few-rows", "all"])
@pytest.mark.parametrize("frames", [1, 2, 3, 7])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "separate"])
def test_fast_path_and_its_gradients_equal_the_formula(monkeypatch, fused, frames, chunk):
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS_CPU", chunk)
    attention = TrajectoryAttention(16, 4, fused_qkv=fused)
    inputs = [torch.randn(3, frames * 5, 16, requires_grad=True) for _ in range(1 if fused else 3)]
    weight = torch.randn(3, frames * 5, 16)
    fast = value_and_gradients(attention, inputs, weight, frames=frames)
    plain = value_and_gradients(attention, inputs, weight, frames=frames, attention={})
    for one, other in zip(fast, plain):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_long_clips_recompute_their_points_and_get_the_same_gradients(monkeypatch, dropout):
    attention = TrajectoryAttention(16, 4, dropout=dropout)
    inputs = [torch.randn(2, 20, 16, requires_grad=True)]
    weight = torch.randn(2, 20, 16)
    answers = []
    for kept in (4, 3):      # frames; above that the points are recomputed
        monkeypatch.setattr(module, "_FRAMES_KEPT", kept)
        torch.manual_seed(3)
        answers.append(value_and_gradients(attention, inputs, weight, frames=4))
    for one, other in zip(*answers):
        torch.testing.assert_close(one, other)


def test_training_keeps_the_points_once_and_in_long_clips_not_at_all(monkeypatch):
    """The points are tokens x frames x channels, the other tensors tokens x channels."""
    attention = TrajectoryAttention(64, 2)
    x = torch.randn(1, 24 * 16, 64)
    points = x.numel() * 24 * x.element_size()
    for kept, low, high in ((24, 1.0, 1.6), (23, 0.0, 0.6)):
        monkeypatch.setattr(module, "_FRAMES_KEPT", kept)
        saved = {}
        with torch.autograd.graph.saved_tensors_hooks(
                lambda t, saved=saved: saved.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t):
            attention(x, frames=24)
        assert low < sum(t.untyped_storage().nbytes() for t in saved.values()) / points < high


def test_the_fast_path_is_exact_in_double_precision():
    attention = TrajectoryAttention(16, 4).double()
    x = torch.randn(2, 15, 16).double()
    torch.testing.assert_close(attention(x, frames=3), attention(x, frames=3, attention={}),
                               atol=1e-13, rtol=0)


def test_gradients_agree_with_finite_differences():
    attention = TrajectoryAttention(4, 2).double()
    x = torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: attention(x, frames=3), x)


@torch.no_grad()
def test_small_inputs_take_the_formula_and_give_the_same_result(monkeypatch):
    attention = TrajectoryAttention(16, 4)
    x = torch.randn(2, 12, 16)
    fast = attention(x, frames=2)
    monkeypatch.setattr(module, "_PLAIN_SCORES", 1 << 17)
    monkeypatch.setattr(module, "_follow_and_pool", None)     # calling it would fail
    torch.testing.assert_close(attention(x, frames=2), fast, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_batch_of_two_equals_two_batches_of_one():
    attention = TrajectoryAttention(16, 4)
    x = torch.randn(2, 12, 16)
    alone = torch.cat([attention(x[:1], frames=3), attention(x[1:], frames=3)])
    torch.testing.assert_close(attention(x, frames=3), alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_attention_maps_sum_to_one():
    maps: dict[str, torch.Tensor] = {}
    TrajectoryAttention(16, 4)(torch.randn(2, 12, 16), frames=3, attention=maps)
    assert maps.keys() == {"space", "time"}
    assert maps["space"].shape == (2, 4, 12, 3, 4)
    assert maps["time"].shape == (2, 4, 12, 3)
    for one in maps.values():
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:-1]))


@torch.no_grad()
def test_order_of_frames_does_not_matter():
    """Each token attends to every frame, and the attention itself has no order of frames."""
    attention = TrajectoryAttention(16, 4)
    x = torch.randn(2, 4, 5, 16)
    order = torch.tensor([2, 0, 3, 1])

    def apply(x):
        return rearrange(attention(rearrange(x, "b t s c -> b (t s) c"), frames=4), "b (t s) c -> b t s c", t=4)

    torch.testing.assert_close(apply(x)[:, order], apply(x[:, order]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_order_of_tokens_within_a_frame_does_not_matter():
    attention = TrajectoryAttention(16, 4)
    x = torch.randn(2, 3, 5, 16)
    order = torch.stack([torch.randperm(5) for _ in range(3)])[None, ..., None].expand_as(x)

    def apply(x):
        return rearrange(attention(rearrange(x, "b t s c -> b (t s) c"), frames=3), "b (t s) c -> b t s c", t=3)

    torch.testing.assert_close(apply(x).gather(2, order), apply(x.gather(2, order)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_with_equal_frames_every_frame_weighs_the_same():
    x = torch.randn(1, 5, 16).repeat(1, 3, 1)
    maps: dict[str, torch.Tensor] = {}
    TrajectoryAttention(16, 4)(x, frames=3, attention=maps)
    torch.testing.assert_close(maps["time"], torch.full_like(maps["time"], 1 / 3))


def test_autocast_is_close_to_float32_and_trains():
    attention = TrajectoryAttention(32, 4)
    x = torch.randn(2, 12, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = attention(x, frames=3)
    torch.testing.assert_close(result.float(), attention(x, frames=3), atol=2e-2, rtol=2e-2)
    result.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in attention.parameters())


@torch.no_grad()
def test_dropout_acts_in_training_only():
    attention = TrajectoryAttention(16, 4, dropout=0.5)
    x = torch.randn(1, 12, 16)
    assert not torch.equal(attention(x, frames=3), attention(x, frames=3))
    attention.eval()
    assert torch.equal(attention(x, frames=3), attention(x, frames=3))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="10 tokens do not divide into 3 frames"):
        TrajectoryAttention(16, 4)(torch.randn(1, 10, 16), frames=3)
    with pytest.raises(ValueError, match="cannot have 5 heads"):
        TrajectoryAttention(16, 5)
