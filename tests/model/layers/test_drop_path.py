"""Drop path drops whole items, and nothing at inference."""

import pytest
import torch

from model.layers.drop_path import DropPath


def test_items_are_kept_whole_or_dropped_whole_and_the_mean_stays():
    out = DropPath(0.25).train()(torch.ones(4000, 3, 2))
    per_item = out.flatten(1)
    assert (per_item == per_item[:, :1]).all()
    torch.testing.assert_close(per_item[:, 0].unique(), torch.tensor([0.0, 4 / 3]))
    assert abs(out.mean() - 1) < 0.05


def test_nothing_is_dropped_in_evaluation():
    x = torch.randn(5, 3)
    assert torch.equal(DropPath(0.9).eval()(x), x)


def test_a_rate_of_one_is_refused():
    with pytest.raises(ValueError, match=r"1\.0"):
        DropPath(1.0)
