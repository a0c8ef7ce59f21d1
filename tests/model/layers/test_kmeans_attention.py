"""k-means attention: pixels are assigned to queries and summed."""

import torch

from model.layers.kmeans_attention import assign_pixels, sum_pixels


def test_every_pixel_is_assigned_to_its_best_query():
    logits = torch.randn(2, 5, 11)
    assert torch.equal(assign_pixels(logits), logits.argmax(dim=1))
    strided = torch.randn(2, 11, 5).transpose(1, 2)
    assert torch.equal(assign_pixels(strided), strided.argmax(dim=1))


def test_sums_equal_scattered_additions_in_double_precision():
    values = torch.randn(2, 3, 4000)
    assignment = torch.randint(0, 6, (2, 4000))
    exact = torch.zeros(2, 3, 6, dtype=torch.float64)
    exact.scatter_add_(2, assignment[:, None].expand(2, 3, 4000), values.double())
    torch.testing.assert_close(sum_pixels(values, assignment, queries=6).double(), exact, atol=1e-4, rtol=1e-5)


def test_sums_are_not_means_and_queries_without_pixels_get_zero():
    values = torch.ones(1, 2, 7)
    sums = sum_pixels(values, torch.tensor([[0, 0, 0, 2, 2, 0, 0]]), queries=4)
    assert sums[0, 0].tolist() == [5, 0, 2, 0]


def test_gradient_reaches_values_through_the_query_they_belong_to():
    values = torch.randn(1, 2, 3, requires_grad=True)
    sum_pixels(values, torch.tensor([[1, 0, 1]]), queries=2)[..., 1].sum().backward()
    assert values.grad[0, 0].tolist() == [1, 0, 1]


def test_half_precision_values_are_added_in_single_precision_under_autocast():
    values = torch.full((1, 1, 4096), 1.0, dtype=torch.bfloat16)     # bfloat16 cannot count beyond 256
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = sum_pixels(values, torch.zeros(1, 4096, dtype=torch.int64), queries=2)
    assert sums.dtype == torch.float32
    assert sums.flatten().tolist() == [4096, 0]
