"""Resizing mask logits to the source frame equals the public code."""

from __future__ import annotations

import pytest

from model.contracts import Geometry
from model.postprocess.resize import MaskResizer
from tests.fidelity.cases import assert_close_to, case_id, cases, load_case, unhandled


def official_geometry(*, resized, padded, output, fits: bool) -> Geometry:
    """Where a frame had fitted in, the reference cuts the output size out of the input, whatever the frame had."""
    if fits:
        output = resized = tuple(min(side, limit) for side, limit in zip(output, padded))
    return Geometry(source=tuple(output), resized=tuple(resized), padded=tuple(padded))


@pytest.mark.parametrize("path", cases("mask_resize"), ids=case_id)
def test_resized_masks_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure != "mask_resize":
            raise unhandled(case)
        masks = case.inputs["mask_pred"]
        a = case.arguments
        padded = tuple(a["padded_size"])
        resized = tuple(a["scaled_size"])
        source = tuple(a["image_size"])
        geometry = official_geometry(resized=resized, padded=padded, output=source, fits=a["scale_factor"] >= 1)
        resizer = MaskResizer(geometry, size=tuple(masks.shape[-2:]), align_corners=a["align_corners"])
        assert_close_to(case, "mask_pred", resizer(masks))
