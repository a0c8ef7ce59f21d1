"""Sampling of deformable attention: samples computed by hand, and equality with `grid_sample`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.deformable_attention import plain_sampling
from model.layers import deformable_sampling as module
from model.layers.deformable_attention import reference_points
from model.layers.deformable_sampling import sample_deformable

HEADS, POINTS, DEPTH = 3, 2, 5
MAPS = {
    "one level": [(4, 5)],
    "several levels": [(2, 3), (5, 4), (9, 7)],
    "one pixel, a line and a column": [(1, 1), (1, 6), (5, 1)],
}


@torch.no_grad()
def test_sampling_at_pixel_centres_returns_the_pixels():
    value = torch.randn(1, 20, 2, 3)
    centres = reference_points([(4, 5)])                                    # 20 1 2
    locations = centres[None, :, None, :, None].expand(1, 20, 2, 1, 1, 2)
    result = sample_deformable(value, shapes=[(4, 5)], locations=locations, weights=torch.ones(1, 20, 2, 1, 1))
    torch.testing.assert_close(result, value.flatten(2), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_half_a_pixel_outside_the_map_counts_half_and_further_out_zero():
    value = torch.ones(1, 20, 1, 1)
    x = torch.tensor([0.0, -0.5 / 5, -1.0])                                 # left edge, half a pixel out, far out
    locations = torch.stack([x, torch.full_like(x, 0.5)], -1)[None, :, None, None, None]
    result = sample_deformable(value, shapes=[(4, 5)], locations=locations, weights=torch.ones(1, 3, 1, 1, 1))
    torch.testing.assert_close(result.flatten(), torch.tensor([0.5, 0.0, 0.0]), atol=1e-6, rtol=0)


def arguments(shapes: list[tuple[int, int]], *, images: int = 2, queries: int = 11, dtype=torch.float64) -> dict:
    """Random places on the maps and as far as a map away from them, some of them exactly at a border."""
    generator = torch.Generator().manual_seed(3)
    shape = (images, queries, HEADS, len(shapes), POINTS)
    locations = 3 * torch.rand(*shape, 2, generator=generator, dtype=dtype) - 1
    locations[:, 0] = locations[:, 0].round()
    value = torch.randn(images, sum(height * width for height, width in shapes), HEADS, DEPTH, generator=generator,
                        dtype=dtype)
    return {"value": value, "locations": locations, "weights": torch.rand(shape, generator=generator, dtype=dtype)}


def result_and_gradients(sampling, inputs: dict[str, Tensor], shapes) -> list[Tensor]:
    leaves = [one.detach().requires_grad_() for one in inputs.values()]
    result = sampling(leaves[0], locations=leaves[1], weights=leaves[2], shapes=shapes)
    gradient = torch.linspace(-1, 2, result.numel()).view_as(result).to(result)
    return [result, *torch.autograd.grad(result, leaves, gradient)]


@pytest.mark.parametrize("shapes", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("chunk", [4, 1024])
def test_results_and_gradients_equal_grid_sample(monkeypatch, shapes, chunk):
    monkeypatch.setattr(module, "_CHUNK_CPU", chunk)
    monkeypatch.setattr(module, "_CHUNK_CPU_BACKWARD", chunk)
    inputs = arguments(shapes)
    ours = result_and_gradients(sample_deformable, inputs, shapes)
    for one, other in zip(ours, result_and_gradients(plain_sampling, inputs, shapes), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_the_arguments_need_not_be_contiguous():
    shapes = MAPS["several levels"]
    inputs = arguments(shapes)
    scattered = {name: one.transpose(1, 2).contiguous().transpose(1, 2) for name, one in inputs.items()}
    ours = result_and_gradients(sample_deformable, scattered, shapes)
    for one, other in zip(ours, result_and_gradients(sample_deformable, inputs, shapes), strict=True):
        assert torch.equal(one, other)


def test_float32_agrees_with_float64_to_its_precision():
    shapes = MAPS["several levels"]
    inputs = arguments(shapes)
    exact = result_and_gradients(sample_deformable, inputs, shapes)
    single = result_and_gradients(sample_deformable, {name: one.float() for name, one in inputs.items()}, shapes)
    for one, other in zip(single, exact, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_only_the_value_and_the_result(dtype):
    shapes = MAPS["several levels"]
    inputs = arguments(shapes, dtype=torch.float32)
    half = inputs | {"value": inputs["value"].to(dtype)}
    expected = result_and_gradients(sample_deformable, half | {"value": half["value"].float()}, shapes)
    result = result_and_gradients(sample_deformable, half, shapes)
    assert [one.dtype for one in result] == [dtype, dtype, torch.float32, torch.float32]
    rounding = torch.finfo(dtype).eps
    for one, other in zip(result, expected, strict=True):
        torch.testing.assert_close(one.float(), other, atol=2 * rounding * other.abs().max().item(), rtol=rounding)


def test_exactly_at_a_pixel_the_gradient_is_that_of_grid_sample():
    """The start of deformable attention puts every point of the own level there. Sizes of 4 and 8 are exact."""
    shapes = [(4, 8)]
    inputs = arguments(shapes)
    sizes = inputs["locations"].new_tensor([8, 4])
    inputs["locations"] = ((inputs["locations"] * sizes).round() + 0.5) / sizes
    ours = result_and_gradients(sample_deformable, inputs, shapes)
    for one, other in zip(ours, result_and_gradients(plain_sampling, inputs, shapes), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_the_gradient_is_the_same_in_every_run():
    shapes = MAPS["several levels"]
    inputs = arguments(shapes, dtype=torch.float32)
    first, second = (result_and_gradients(sample_deformable, inputs, shapes) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second))


def test_a_place_that_is_no_number_spoils_its_own_query_alone():
    """A training that diverges ends with its own message, not with a row that the table does not have."""
    shapes = MAPS["several levels"]
    inputs = arguments(shapes)
    inputs["locations"][0, 4, 1, 0, 0, 0] = torch.nan
    inputs["locations"][0, 5, 1, 0, 0, 0] = torch.inf
    result, *_ = result_and_gradients(sample_deformable, inputs, shapes)
    assert result[0, 4].isnan().any()
    assert result[:, 5:].isfinite().all()
    assert result[1].isfinite().all()
