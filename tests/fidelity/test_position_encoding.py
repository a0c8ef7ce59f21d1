"""Sine positions equal the public code."""

from __future__ import annotations

import pytest
from einops import rearrange, repeat
from torch import Tensor

from model.layers.positions import sine_positions_2d, sine_positions_3d
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled


def positions(case: Case) -> Tensor:
    channels = 2 * case.arguments["num_pos_feats"]
    shape = case.inputs["x"].shape
    if case.arguments["three_d"]:
        b, t, _, h, w = shape
        if "mask" in case.inputs:
            padding = case.inputs["mask"].bool()
            return rearrange(sine_positions_3d(t, h, w, channels=channels, padding=padding), "b t h w c -> b t c h w")
        return repeat(sine_positions_3d(t, h, w, channels=channels), "t h w c -> b t c h w", b=b)
    b, _, h, w = shape
    if "mask" in case.inputs:
        padding = case.inputs["mask"].bool()
        return rearrange(sine_positions_2d(h, w, channels=channels, padding=padding), "b h w c -> b c h w")
    return repeat(sine_positions_2d(h, w, channels=channels), "h w c -> b c h w", b=b)


@pytest.mark.parametrize("path", cases("position_encoding"), ids=case_id)
def test_sine_positions_equal_the_reference(path):
    with load_case(path) as case:
        match case.procedure:
            case "sine_positions":
                assert_close_to(case, "out", positions(case))
            case _:
                raise unhandled(case)
