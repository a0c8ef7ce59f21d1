"""Resizing with kMaX's rule for aligned corners."""

import torch
import torch.nn.functional as F

from model.layers.resize import resize


def test_corners_are_kept_exactly_when_the_source_width_is_odd():
    odd = torch.randn(1, 2, 4, 5)
    even = torch.randn(1, 2, 5, 4)
    assert torch.allclose(resize(odd, (7, 9))[..., 0, 0], odd[..., 0, 0])
    torch.testing.assert_close(resize(odd, (7, 9)), F.interpolate(odd, (7, 9), mode="bilinear", align_corners=True))
    torch.testing.assert_close(resize(even, (9, 8)), F.interpolate(even, (9, 8), mode="bilinear", align_corners=False))


def test_an_argument_overrides_the_rule():
    odd = torch.randn(1, 2, 4, 5)
    torch.testing.assert_close(resize(odd, (7, 9), align_corners=False),
                               F.interpolate(odd, (7, 9), mode="bilinear", align_corners=False))
