"""Resizing mask logits to the source frame equals the public code."""

from __future__ import annotations

import pytest

from model.contracts import Geometry
from model.layers.resize import is_odd
from model.postprocess.resize import MaskResizer
from tests.fidelity.cases import assert_close_to, case_id, cases, load_case, unhandled


@pytest.mark.parametrize("path", cases("mask_resize"), ids=case_id)
def test_resized_masks_equal_the_reference(path):
    with load_case(path) as case:
        if case.procedure != "mask_resize":
            raise unhandled(case)
        masks, a = case.inputs["mask_pred"], case.arguments
        padded, resized, source = tuple(a["padded_size"]), tuple(a["scaled_size"]), tuple(a["image_size"])
        assert a["align_corners"] == is_odd(padded[1]), "the reference left its own rule of corners"
        geometry = Geometry(source=resized if a["scale_factor"] >= 1 else source, resized=resized, padded=padded)
        assert_close_to(case, "mask_pred", MaskResizer(geometry, size=tuple(masks.shape[-2:]))(masks))
