"""Multi-scale deformable attention equals the public code, kernel and layer."""

from __future__ import annotations

import pytest
import torch

from model.converters.rename import load_strict
from model.layers.deformable_attention import DeformableAttention
from model.layers.deformable_sampling import sample_deformable
from tests.fidelity.cases import Case, assert_close_to, case_id, cases, load_case, unhandled


def shapes_of(case: Case) -> list[tuple[int, int]]:
    return [tuple(shape) for shape in case.inputs["spatial_shapes"].tolist()]


def kernel(case: Case) -> None:
    result = sample_deformable(case.inputs["value"], shapes=shapes_of(case),
                               locations=case.inputs["sampling_locations"], weights=case.inputs["attention_weights"])
    assert_close_to(case, "out", result)


def layer(case: Case) -> None:
    a = case.arguments
    module = DeformableAttention(a["d_model"], heads=a["n_heads"], levels=a["n_levels"], points=a["n_points"])
    load_strict(module, case.state)
    padding = case.inputs["padding_mask"].bool() if "padding_mask" in case.inputs else None
    result = module(case.inputs["query"], reference=case.inputs["reference_points"],
                    memory=case.inputs["input_flatten"], shapes=shapes_of(case), padding=padding)
    assert_close_to(case, "out", result)


@pytest.mark.parametrize("path", cases("deformable_attention"), ids=case_id)
@torch.no_grad()
def test_deformable_attention_equals_the_reference(path):
    with load_case(path) as case:
        match case.procedure:
            case "ms_deform_attn_core":
                kernel(case)
            case "ms_deform_attn":
                layer(case)
            case _:
                raise unhandled(case)
