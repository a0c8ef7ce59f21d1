"""What is spooled comes back the same, in order, more than once."""

import pytest
import torch

from pipeline.spool import TensorSpool


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_spool_gives_back_what_it_was_given(dtype):
    spool = TensorSpool()
    given = [(torch.randn(3, 2, 4 + k, 5).to(dtype), k) for k in range(4)]
    for entry in given:
        spool.append(entry)
    for _ in range(2):
        assert len(spool) == 4
        for (tensor, number), (expected, expected_number) in zip(spool, given, strict=True):
            assert torch.equal(tensor, expected)
            assert number == expected_number


def test_a_strided_tensor_is_kept_by_value():
    spool = TensorSpool()
    tensor = torch.arange(24.0).view(4, 6).T[::2]
    spool.append((tensor, 1))
    assert torch.equal(next(iter(spool))[0], tensor)


def test_a_spool_that_is_cleared_starts_anew():
    spool = TensorSpool()
    spool.append((torch.zeros(3), 1))
    spool.clear()
    spool.append((torch.ones(2), 2))
    ((tensor, number),) = spool
    assert (tensor.tolist(), number) == ([1, 1], 2)
